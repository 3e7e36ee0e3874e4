//! Language servers work in a confined worker: they report an error in a file, answer a question about it, and nothing
//! that they need is refused. Those of npm are pinned in `tests/real`.

use std::path::{Path, PathBuf};

use crate::tools::{InCi, check, has, write};
use crate::world::World;

/// Returns a program that `npm ci` installs in `tests/real`, or prints that the test is skipped.
fn installed(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/node_modules/.bin").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} is not installed: run `npm ci` in tests/real");
    eprintln!("SKIPPED: {name} is not installed: run `npm ci` in tests/real");
    None
}

/// Checks a server in a project with these files, the first of which is opened.
fn check_server(node: &str, server: &str, language: &str, files: &[(&str, &str)]) {
    let Some(world) = World::new("") else { return };
    write(&world, files);
    write(&world, &[("client.js", include_str!("language_client.js"))]);
    check(&world, &format!("{node} client.js {language} {} {server}", files[0].0));
}

#[test]
fn typescript_language_server_answers() {
    let Some((node, server)) = installed("node").zip(installed("typescript-language-server")) else { return };
    let files = [
        ("src/app.ts", "const answer: number = 'text';\nexport default answer\n"),
        ("tsconfig.json", "{\"compilerOptions\": {\"strict\": true}, \"include\": [\"src\"]}\n"),
        ("package.json", "{\"name\": \"app\", \"dependencies\": {}}\n"),
    ];
    // The servers of npm start with the node of the PATH, which may be too old.
    let node = node.display().to_string();
    check_server(&node, &format!("{node} {} --stdio", server.display()), "typescript", &files);
}

#[test]
fn pyright_answers() {
    let Some((node, server)) = installed("node").zip(installed("pyright-langserver")) else { return };
    let files =
        [("src/app.py", "answer: int = 'text'\nprint(answer) or answer\n"), ("pyproject.toml", "[tool.pyright]\n")];
    let node = node.display().to_string();
    check_server(&node, &format!("{node} {} --stdio", server.display()), "python", &files);
}

#[test]
fn rust_analyzer_answers() {
    let Some(node) = installed("node").filter(|_| has("rust-analyzer", &["--version"], InCi::Optional)) else { return };
    let files = [
        ("src/lib.rs", "pub fn answer() -> u32 {\n    42\n}\nfn broken( {}\nuse crate::answer as another;\n"),
        (".gitignore", "/target\nCargo.lock\n"),
        ("Cargo.toml", "[package]\nname = \"app\"\nversion = \"1.0.0\"\nedition = \"2021\"\n"),
    ];
    check_server(&node.display().to_string(), "rust-analyzer", "rust", &files);
}
