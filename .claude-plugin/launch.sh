#!/bin/sh
# Starts orchestrator-boss for the Claude Code plugin: `launch.sh serve` is its MCP server, `launch.sh guard` its hook.
#
# The plugin does not bring the program. Where it is missing, or does not start, the hook says nothing, since it is called
# at each edit in each project; the server answers Claude Code with how to install it, which `claude mcp list` and `/mcp`
# show. What a server only prints is shown nowhere.

# The PATH, then where installers put it: clients started from a desktop have hardly any PATH.
find_program() {
    command -v orchestrator-boss && return
    for folder in "${CARGO_HOME:-$HOME/.cargo}/bin" "$HOME/.local/bin" /opt/homebrew/bin /usr/local/bin; do
        [ -x "$folder/orchestrator-boss" ] && printf '%s\n' "$folder/orchestrator-boss" && return
    done
    return 1
}

how_to_install() {
    root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
    # Installed from a repository, the plugin's folder holds the sources. In errors Claude Code hides the values of a
    # server's variables, this folder's path among them: written otherwise, it can be read.
    if [ -f "$root/Cargo.toml" ]; then
        quoted=$(printf '%s' "${root%/*}/./${root##*/}" | sed "s/'/'\\\\''/g")
        printf '%s\n' "run \`cargo install --locked --path '$quoted'\` (needs Rust, https://rustup.rs, and a C compiler)"
    else
        echo "install it as the README of the plugin says, in a folder on the PATH"
    fi
}

# Every request is answered with an error that carries the text, until the client goes.
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
    # An older program knows no guard, and Claude Code would take its exit status 2 for a refusal.
    [ -z "$program" ] || "$program" guard 2>/dev/null || true
    ;;
serve)
    then="then reconnect in /mcp, or start a new session"
    [ -n "$program" ] ||
        refuse "The plugin needs the program orchestrator-boss, which is not installed: $(how_to_install); $then"
    said=$("$program" --version 2>&1) ||
        refuse "The plugin needs the program orchestrator-boss, and $program does not start ($said): to install it anew, $(how_to_install); $then"
    exec "$program" serve
    ;;
esac
exit 0
