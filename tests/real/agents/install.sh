#!/usr/bin/env bash
# Installs the agents of the Agent Client Protocol that only the nightly tests need, pinned, in this folder.
# Needs npm, and Python 3.12 or newer, which PYTHON may name.
set -euo pipefail
cd "$(dirname "$0")"

npm ci --no-audit --no-fund

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' || {
    echo "cannot install Mistral Vibe: $("$python" --version) is too old; set PYTHON to Python 3.12 or newer" >&2
    exit 1
}
"$python" -m venv vibe
vibe/bin/pip install --quiet --requirement requirements.txt
