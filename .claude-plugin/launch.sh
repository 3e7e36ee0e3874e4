#!/bin/sh
# Starts orchestrator-boss for the Claude Code plugin: `launch.sh serve` is its MCP server, `launch.sh guard` its hook.
#
# The plugin does not contain the program. If it is missing or does not start, the hook stays silent, since it runs at
# each edit in each project. The server answers requests with how to install it, which `claude mcp list` and `/mcp` show;
# they do not show the output of a server.

# Searches the PATH, then the folders of installers: clients that a desktop starts have a short PATH.
find_program() {
    command -v orchestrator-boss && return
    for folder in "${CARGO_HOME:-$HOME/.cargo}/bin" "$HOME/.local/bin" /opt/homebrew/bin /usr/local/bin; do
        [ -x "$folder/orchestrator-boss" ] && printf '%s\n' "$folder/orchestrator-boss" && return
    done
    return 1
}

how_to_install() {
    root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
    # Installed from a repository, the plugin's folder holds the sources. Claude Code masks the values of a server's
    # variables in errors, this folder's path among them, so the path is written differently.
    if [ -f "$root/Cargo.toml" ]; then
        quoted=$(printf '%s' "${root%/*}/./${root##*/}" | sed "s/'/'\\\\''/g")
        printf '%s\n' "run \`cargo install --locked --path '$quoted'\` (needs Rust, https://rustup.rs, and a C compiler)"
    else
        echo "install it in a folder on the PATH, as described in the README of the plugin"
    fi
}

# Answers every request with an error that contains the text, until the input ends.
refuse() {
    text=$(printf '%s' "$1" | tr '\n\t\r' '   ' | sed 's/\\/\\\\/g; s/"/\\"/g')
    while IFS= read -r line; do
        id=$(printf '%s\n' "$line" | sed -n -e 's/.*"id" *: *\(-\{0,1\}[0-9][0-9]*\).*/\1/p' -e 's/.*"id" *: *\("[^"]*"\).*/\1/p')
        [ -n "$id" ] && printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32000,"message":"%s"}}\n' "$id" "$text"
    done
    exit 1
}

program=$(find_program) || program=
case $1 in
guard)
    # An older program has no guard command, and Claude Code would take its exit status 2 for a refusal.
    [ -z "$program" ] || "$program" guard 2>/dev/null || true
    ;;
serve)
    then="then reconnect in /mcp, or start a new session"
    [ -n "$program" ] ||
        refuse "The plugin needs the program orchestrator-boss, which is not installed: $(how_to_install); $then"
    output=$("$program" --version 2>&1) ||
        refuse "The plugin needs the program orchestrator-boss, and $program does not start ($output): to reinstall it, $(how_to_install); $then"
    exec "$program" serve
    ;;
esac
exit 0
