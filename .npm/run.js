#!/usr/bin/env node
// Starts the program, which the package of this platform contains. Nothing is downloaded or compiled.
'use strict';

const { spawn } = require('node:child_process');

const PLATFORMS = ['linux-x64', 'linux-arm64', 'darwin-x64', 'darwin-arm64'];

function fail(cause) {
    process.stderr.write(`cannot start orchestrator-boss: ${cause}\n`);
    process.exit(1);
}

function find() {
    const platform = `${process.platform}-${process.arch}`;
    if (!PLATFORMS.includes(platform)) {
        fail(`there is no program for ${platform}, only for ${PLATFORMS.join(', ')}`);
    }
    const name = `orchestrator-boss-${platform}`;
    try {
        return require.resolve(`${name}/bin/orchestrator-boss`);
    } catch {
        return fail(`the package ${name} is not installed; install again without --omit=optional or --no-optional`);
    }
}

// Without `execve` (Node before 22.15), this process stays as the parent.
function supervise(program, args) {
    const child = spawn(program, args, { stdio: 'inherit' });
    // A terminal sends these to the child too, and it decides what to do.
    for (const signal of ['SIGINT', 'SIGHUP', 'SIGQUIT']) process.on(signal, () => {});
    process.on('SIGTERM', () => child.kill('SIGTERM'));
    child.on('error', (error) => fail(error.message));
    child.on('exit', (code, signal) => {
        if (!signal) process.exit(code);
        process.removeAllListeners(signal);
        process.kill(process.pid, signal);
    });
}

const program = find();
const args = process.argv.slice(2);
if (typeof process.execve === 'function') {
    // Node calls `execve` experimental. A warning would stand before each output.
    process.emitWarning = () => {};
    process.execve(program, [program, ...args], process.env);
} else {
    supervise(program, args);
}
