// Starts a language server in this folder, opens a file, and asks for the type at the start of its last word. Succeeds
// when the server has reported an error in the file and has answered.
//
// node language_client.js LANGUAGE FILE PROGRAM ARGUMENTS…
'use strict';

const { spawn } = require('node:child_process');
const { readFileSync } = require('node:fs');
const { resolve } = require('node:path');
const { pathToFileURL } = require('node:url');

const [language, file, program, ...args] = process.argv.slice(2);
const [INITIALIZE, HOVER, SHUTDOWN] = [1, 2, 3];
const text = readFileSync(file, 'utf8');
const uri = pathToFileURL(resolve(file)).href;
const rootUri = pathToFileURL(process.cwd()).href;
const missing = new Set(['diagnostics', 'hover']);

const server = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
server.on('exit', (code, signal) => {
    console.error(`the server ended (${code ?? signal}); missing: ${[...missing]}`);
    process.exit(missing.size);
});

function send(message) {
    const body = JSON.stringify({ jsonrpc: '2.0', ...message });
    server.stdin.write(`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

function hover() {
    const lines = text.trimEnd().split('\n');
    const position = { line: lines.length - 1, character: lines.at(-1).lastIndexOf(' ') + 1 };
    send({ id: HOVER, method: 'textDocument/hover', params: { textDocument: { uri }, position } });
}

function found(what) {
    if (missing.delete(what) && missing.size === 0) send({ id: SHUTDOWN, method: 'shutdown' });
}

function handle(message) {
    if (message.method && message.id !== undefined) {
        const isAsked = message.method === 'workspace/configuration';
        send({ id: message.id, result: isAsked ? message.params.items.map(() => null) : null });
    } else if (message.method === 'textDocument/publishDiagnostics') {
        const isOurs = decodeURIComponent(message.params.uri) === decodeURIComponent(uri);
        if (isOurs && message.params.diagnostics.length > 0) found('diagnostics');
    } else if (message.id === INITIALIZE) {
        send({ method: 'initialized', params: {} });
        const textDocument = { uri, languageId: language, version: 1, text };
        send({ method: 'textDocument/didOpen', params: { textDocument } });
        hover();
    } else if (message.id === HOVER) {
        // A server that still loads the project has no answer, or refuses.
        if (message.result) found('hover');
        else setTimeout(hover, 100);
    } else if (message.id === SHUTDOWN) {
        send({ method: 'exit' });
    }
}

let input = Buffer.alloc(0);
server.stdout.on('data', (chunk) => {
    input = Buffer.concat([input, chunk]);
    for (;;) {
        const head = input.indexOf('\r\n\r\n');
        if (head < 0) return;
        const length = Number(/Content-Length: (\d+)/i.exec(input.toString('utf8', 0, head))[1]);
        if (input.length < head + 4 + length) return;
        const body = input.toString('utf8', head + 4, head + 4 + length);
        input = input.subarray(head + 4 + length);
        handle(JSON.parse(body));
    }
});

const capabilities = { textDocument: { publishDiagnostics: {}, hover: {} }, workspace: { configuration: true } };
const workspaceFolders = [{ uri: rootUri, name: 'app' }];
send({ id: INITIALIZE, method: 'initialize', params: { processId: process.pid, rootUri, workspaceFolders, capabilities } });
