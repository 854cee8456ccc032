//! What the sources say about the structures that are read from the configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, GenericArgument, Item, Lit, Meta, PathArguments, Type};

/// All structures and closed lists of the crates and services that are read from somewhere.
pub(super) struct Sources {
    structures: HashMap<String, Vec<Structure>>,
    /// The values of an enum as they are written, by name.
    choices: HashMap<String, Vec<(PathBuf, Vec<String>)>>,
}

#[derive(Clone)]
pub(super) struct Structure {
    file: PathBuf,
    pub(super) doc: String,
    pub(super) fields: Vec<Field>,
}

#[derive(Clone)]
pub(super) struct Field {
    pub(super) name: String,
    /// The type without `Option`.
    pub(super) kind: String,
    pub(super) optional: bool,
    pub(super) flattened: bool,
    pub(super) doc: String,
    /// Where it is written, from the root on.
    pub(super) file: PathBuf,
}

impl Sources {
    pub(super) fn of(root: &Path) -> Self {
        let mut all = Self { structures: HashMap::new(), choices: HashMap::new() };
        for folder in ["crates", "services"] {
            all.walk(root, &root.join(folder));
        }
        all
    }

    fn walk(&mut self, root: &Path, folder: &Path) {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                self.walk(root, &path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                // Few files have any; parsing all would take a while.
                if text.contains("Deserialize, Serialize)]") {
                    let file = path.strip_prefix(root).unwrap().to_owned();
                    self.add(&file, syn::parse_file(&text).unwrap());
                }
            }
        }
    }

    fn add(&mut self, file: &Path, parsed: syn::File) {
        for item in parsed.items {
            match item {
                Item::Struct(item) if has_list(&item.attrs, "derive", "Deserialize") => {
                    let fields = item.fields.iter().filter_map(|field| {
                        let (kind, optional) = kind(&field.ty);
                        let name = field.ident.as_ref()?.to_string();
                        let flattened = has_list(&field.attrs, "serde", "flatten");
                        Some(Field { name, kind, optional, flattened, doc: doc(&field.attrs), file: file.to_owned() })
                    });
                    let structure =
                        Structure { file: file.to_owned(), doc: doc(&item.attrs), fields: fields.collect() };
                    self.structures.entry(item.ident.to_string()).or_default().push(structure);
                }
                Item::Enum(item) if has_list(&item.attrs, "derive", "Deserialize") => {
                    let kebab = has_list(&item.attrs, "serde", "kebab-case");
                    let values = item.variants.iter().map(|variant| written(&variant.ident.to_string(), kebab));
                    let values = (file.to_owned(), values.collect());
                    self.choices.entry(item.ident.to_string()).or_default().push(values);
                }
                _ => {}
            }
        }
    }

    pub(super) fn has_structure(&self, name: &str) -> bool {
        self.structures.contains_key(name)
    }

    /// The structure that `file` means by `name`.
    pub(super) fn structure(&self, name: &str, file: &Path) -> &Structure {
        let same = self.structures.get(name).map(Vec::as_slice).unwrap_or_default();
        let here = same.iter().find(|structure| structure.file == file);
        let only = if same.len() == 1 { same.first() } else { None };
        here.or(only)
            .unwrap_or_else(|| panic!("{} has no single {name} that derives Deserialize, Serialize", file.display()))
    }

    /// The values of a closed list.
    pub(super) fn choices(&self, field: &Field) -> Option<&[String]> {
        let same = self.choices.get(&field.kind)?;
        let here = same.iter().find(|(file, _)| *file == field.file);
        here.or(same.first()).map(|(_, values)| values.as_slice())
    }
}

/// The type without `Option`, and whether there was one.
fn kind(of: &Type) -> (String, bool) {
    let Type::Path(path) = of else { return (String::new(), false) };
    let Some(last) = path.path.segments.last() else { return (String::new(), false) };
    let name = last.ident.to_string();
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return (name, false) };
    let inner = arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(inner) => Some(kind(inner).0),
        _ => None,
    });
    match (name.as_str(), inner) {
        ("Option", Some(inner)) => (inner, true),
        (_, Some(inner)) => (format!("{name}<{inner}>"), false),
        (_, None) => (name, false),
    }
}

fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(named) = &attribute.meta else { return None };
        let Expr::Lit(text) = &named.value else { return None };
        let Lit::Str(text) = &text.lit else { return None };
        named.path.is_ident("doc").then(|| text.value().trim().to_owned())
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// Whether there is an attribute such as `#[serde(..., what, ...)]`.
fn has_list(attributes: &[Attribute], name: &str, what: &str) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident(name) && list.tokens.to_string().contains(what),
        _ => false,
    })
}

/// A variant as serde writes it in lower case, with dashes between its words or without.
fn written(variant: &str, kebab: bool) -> String {
    let mut text = String::new();
    for (at, letter) in variant.char_indices() {
        if kebab && at > 0 && letter.is_ascii_uppercase() {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
