//! Reads the texts that commands take: from the command line, or from stdin for `-`.

use std::io::Read;

use super::error::CliError;

/// Maximum size of a text in bytes, as for a boss.
const MAX_TEXT: u64 = 1024 * 1024;

/// Returns the text. `what` names it in errors.
pub(super) fn read(given: &str, what: &str) -> Result<String, CliError> {
    let text = match given {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().take(MAX_TEXT + 1).read_to_string(&mut text);
            read.map_err(|error| CliError::Failed(format!("cannot read {what} from stdin: {error}")))?;
            text
        }
        text => text.to_owned(),
    };
    if text.trim().is_empty() {
        return Err(CliError::Usage(format!("{what} is empty: give a text")));
    }
    if text.len() as u64 > MAX_TEXT {
        return Err(CliError::Usage(format!("{what} is longer than 1 MiB")));
    }
    Ok(text)
}
