#!/bin/sh
# Starts orchestrator-boss for the plugin of Claude Code and Codex: `launch.sh serve` is its MCP server, `launch.sh guard`
# its hook.
#
# The plugin does not contain the program, and starts only a program of its own version: first an installed one, then the
# npm package, but only if the plugin comes from a release that has published it. The release adds the file `published`;
# until then a stranger could claim the name. If there is no such program, the hook stays silent, since it runs at each
# edit in each project. The server answers requests with how to install it, which clients show; they do not show the
# output of a server.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
version=$(sed -n 's/^ *"version": "\([^"]*\)".*/\1/p' "$root/.claude-plugin/plugin.json")

# Lists the program on the PATH, then those in folders of installers: clients that a desktop starts have a short PATH.
installed() {
    command -v orchestrator-boss
    for folder in "${CARGO_HOME:-$HOME/.cargo}/bin" "$HOME/.local/bin" /opt/homebrew/bin /usr/local/bin; do
        [ -x "$folder/orchestrator-boss" ] && printf '%s\n' "$folder/orchestrator-boss"
    done
}

# Sets `program` to the first installed program of this version, or `trouble` to what is wrong with the first one.
choose_program() {
    program='' trouble=''
    set -f
    IFS='
'
    for candidate in $(installed); do
        if ! output=$("$candidate" --version 2>&1); then
            trouble=${trouble:-"$candidate does not start ($output)"}
            continue
        fi
        case $output in
        "orchestrator-boss $version" | "orchestrator-boss $version "*) program=$candidate && break ;;
        esac
        trouble=${trouble:-"$candidate has another version ($output)"}
    done
    unset IFS
    set +f
}

can_use_npm() {
    [ -f "$root/.claude-plugin/published" ] && command -v npx >/dev/null
}

# Runs the npm package. npx starts in the plugin's folder, since it would read settings and packages of the project.
run_npm_package() {
    PLUGIN_PROJECT=$PWD
    export PLUGIN_PROJECT
    cd "$root" || exit 1
    exec npx --yes --prefer-offline --package="orchestrator-boss@$version" \
        -c "cd \"\$PLUGIN_PROJECT\" && unset PLUGIN_PROJECT && exec orchestrator-boss $1"
}

how_to_install() {
    # Installed from a repository, the plugin's folder holds the sources. Claude Code masks the values of a server's
    # variables in errors, this folder's path among them, so the path is written differently.
    if [ -f "$root/Cargo.toml" ]; then
        quoted=$(printf '%s' "${root%/*}/./${root##*/}" | sed "s/'/'\\\\''/g")
        printf '%s\n' "run \`cargo install --locked --path '$quoted'\` (needs Rust, https://rustup.rs, and a C compiler)"
    elif [ -f "$root/.claude-plugin/published" ]; then
        printf '%s\n' "run \`npm install -g orchestrator-boss@$version\` (needs Node, https://nodejs.org)"
    else
        echo "put it into a folder on the PATH, as described in the README of the plugin"
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

case $1 in
guard)
    case ${CLAUDE_PLUGIN_OPTION_GUARD:-} in true | 1) ;; *) exit 0 ;; esac
    choose_program
    # A program with an error must not refuse the edit: Claude Code takes the exit status 2 for a refusal.
    if [ -n "$program" ]; then
        "$program" guard 2>/dev/null || true
    elif can_use_npm; then
        (run_npm_package guard) 2>/dev/null || true
    fi
    ;;
serve)
    choose_program
    [ -z "$program" ] || exec "$program" serve
    can_use_npm && run_npm_package serve
    then="then reconnect in /mcp, or start a new session"
    [ -n "$trouble" ] || refuse "The plugin needs the program orchestrator-boss, which is not installed: $(how_to_install); $then"
    refuse "The plugin needs orchestrator-boss $version, and $trouble: to install it, $(how_to_install); $then"
    ;;
esac
exit 0
