#!/usr/bin/env bash
# Installs Signal's Node library in the releases that the tests speak with, as package-lock.json pins them.
set -euo pipefail
cd "$(dirname "$0")"
if [ -f node_modules/.installed ] && cmp -s package-lock.json node_modules/.installed; then
    exit 0
fi
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
cp package-lock.json node_modules/.installed
