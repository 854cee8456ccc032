#!/usr/bin/env bash
# Builds the `causeway` of the commit in tests/upgrade/EARLIER, or of the one given, and prints where it is:
# target/earlier/<commit>/causeway. What was built once is kept. Leaves with 3 where the history does not have that commit.
#
# It shares the crates of others with the present build, in the same target folder. Its own crates must not be taken for the
# present ones there: Cargo knows them by their place in the workspace and their version. So they get another version, and the
# binary another name.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "earlier: $*" >&2
    exit "${code:-1}"
}

# The checkout may be somebody else's, as in a container.
git() { command git -c safe.directory="$(pwd -P)" "$@"; }

wanted=${1:-$(grep -v '^#' tests/upgrade/EARLIER | head -n 1)}
[ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$(pwd -P)" ] ||
    code=3 fail "this is no git checkout, so the earlier version $wanted cannot be had: clone the repository"
commit=$(git rev-parse --quiet --verify "$wanted^{commit}") ||
    code=3 fail "commit $wanted is not in this clone: get the whole history (git fetch --unshallow)"

target=${CARGO_TARGET_DIR:-target}
folder=$target/earlier/$commit
if [ -x "$folder/causeway" ]; then
    echo "$folder/causeway"
    exit
fi
source=$folder/source
rm -rf "$source"
mkdir -p "$source"
git archive "$commit" | tar -x -C "$source"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$source/Cargo.toml")
[ -n "$version" ] || fail "the workspace of $commit states no version"
sed -i "/^\[workspace.package\]/,/^\[/s/^version = .*/version = \"$version-g${commit:0:12}\"/" "$source/Cargo.toml"
printf '\n[[bin]]\nname = "causeway-earlier"\npath = "src/main.rs"\n' >>"$source/services/causeway/Cargo.toml"
# Crates of others have the features that they have in the present build only if the same crates ask for them: all of the
# workspace, and what its tests need. So one empty test is asked for.
mkdir -p "$source/crates/identity/tests"
echo '//! Nothing.' >"$source/crates/identity/tests/nothing.rs"

target=$(realpath "$target")
cd "$source"
# The versions of its own crates, and nothing else.
cargo update --quiet --workspace >&2
CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$target cargo build --quiet --locked --workspace --bin causeway-earlier --test nothing >&2
cd - >/dev/null
"$target/debug/causeway-earlier" --version | grep -q "g${commit:0:12}" || fail "what was built is not of $commit"
install -m 755 "$target/debug/causeway-earlier" "$folder/causeway.new"
mv "$folder/causeway.new" "$folder/causeway"
rm -rf "$source" "$target/debug/causeway-earlier" "$target/debug/causeway-earlier.d"
echo "$folder/causeway"
