//! The scripted fake CLI of the end-to-end tests: a worker that does exactly what its prompt says.
//!
//! It reads its prompt from stdin and runs the lines after the last line that begins with `FAKE:`, up to an empty line,
//! a line `END` or the end, so that text around the script is ignored. Each line is one command; `script.rs` lists
//! them. A prompt without such a line gets the answer `heard: <its last line>` and succeeds. `--resume ID` is a later
//! turn, which remembers nothing. The output is the JSONL of custom backends, plain text with `--plain`, or the Agent
//! Client Protocol with `--acp` (`acp.rs`). An invalid script ends it with status 64 and an error on stderr, so that a typo cannot make a test pass.

mod acp;
mod output;
mod script;
mod unix;

use std::env;
use std::io::{self, Read};
use std::process::ExitCode;

use output::Output;
use script::{Cannot, Script};

fn main() -> ExitCode {
    let mut plain = false;
    let mut resume = None;
    let (mut is_agent, mut quirks) = (false, acp::Quirks::default());
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--version" => return print_version(),
            "--plain" => plain = true,
            "--acp" => is_agent = true,
            "--silent" => quirks.silent = true,
            "--logged-out" => quirks.logged_out = true,
            "--forgetful" => quirks.forgetful = true,
            "--resume" => resume = args.next(),
            // Ignores arguments that a settings file may add, such as `--model x`.
            _ => {}
        }
    }
    if is_agent {
        acp::serve(&quirks);
        return ExitCode::SUCCESS;
    }
    let mut prompt = Vec::new();
    if let Err(error) = io::stdin().read_to_end(&mut prompt) {
        return refuse(&Cannot::Io { what: "read the prompt".to_owned(), source: error });
    }
    let mut output = Output::new(plain);
    if let Some(id) = resume {
        output.session(&id);
    }
    match Script::of(&String::from_utf8_lossy(&prompt)).run(&mut output) {
        Ok(code) => ExitCode::from(code),
        Err(error) => refuse(&error),
    }
}

fn print_version() -> ExitCode {
    println!("fake-cli 1.0.0");
    ExitCode::SUCCESS
}

fn refuse(error: &Cannot) -> ExitCode {
    eprintln!("fake-cli: {error}");
    ExitCode::from(64)
}
