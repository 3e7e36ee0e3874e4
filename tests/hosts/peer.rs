//! One of the hosts in `tests/hosts`: it reads a command a line, such as `post FOLDER TEXT`, calls the function of that name
//! for the attempt in this folder, and prints the answer in one line.

use std::io::stdin;
use std::path::{Path, PathBuf};

use orchestrator_boss::attempt::inbox::{Delivery, InboxEntry, Instruction, PostResult};
use orchestrator_boss::attempt::worker_dir::AttemptDir;
use orchestrator_boss::files::FileError;

fn main() {
    for line in stdin().lines() {
        let line = line.expect("a line of text");
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let answer = match run(&words) {
            Ok(answer) => answer,
            Err(error) => format!("error: {error}"),
        };
        println!("{answer}");
    }
}

fn run(words: &[&str]) -> Result<String, FileError> {
    let (folder, argument) = (Path::new(words[1]), words.get(2).copied().unwrap_or_default());
    let attempt = AttemptDir::at(folder.to_owned());
    let number = || argument.parse().expect("a number");
    let texts =
        |entries: Vec<InboxEntry>| entries.into_iter().filter_map(InboxEntry::into_text).collect::<Vec<_>>().join(",");
    Ok(match words[0] {
        "create" => attempt.create(&()).map(|()| "created".to_owned())?,
        // These are the first steps of a supervisor.
        "claim" => {
            attempt.reserve_outcome()?;
            attempt.take_claim()?.to_string()
        }
        "claimed" => attempt.is_still_claimed().to_string(),
        "fence" => attempt.fence()?.to_string(),
        "revoke" => attempt.revoke().map(|()| "revoked".to_owned())?,
        "post" => match attempt.post(&message(argument))? {
            PostResult::Accepted => "accepted".to_owned(),
            PostResult::Closed => "closed".to_owned(),
        },
        "read" => texts(attempt.inbox_entries(number())?),
        "close" => texts(attempt.close_inbox(number())?),
        "exists" => PathBuf::from(argument).exists().to_string(),
        other => panic!("{other} is no command"),
    })
}

fn message(text: &str) -> InboxEntry {
    let instruction = Instruction::Message { text: text.to_owned(), delivery: Delivery::WhenReady };
    InboxEntry { id: uuid::Uuid::new_v4(), at: jiff::Timestamp::UNIX_EPOCH, by: None, instruction }
}
