//! Checks of the values of a mission's fields, which a call and a profile may both set. Each error names the field and
//! the accepted values. Checks that need the other missions or the repository belong to other rooms.

use thiserror::Error;

use crate::backend::{Backends, UnknownBackend};

/// Maximum size in bytes of an id, or of the name of a branch or model.
pub const NAME: usize = 200;
/// Maximum size in bytes of a command line or path.
pub const LINE: usize = 8 * 1024;
/// Maximum size in bytes of a prompt or message.
pub const PROMPT: usize = 1024 * 1024;
/// One week.
pub const LONGEST_TIMEOUT_MINUTES: u64 = 7 * 24 * 60;
pub const MAX_ATTEMPTS: u64 = 20;
pub const MAX_FALLBACKS: u64 = 10;
pub const MAX_COST_USD: f64 = 100_000.0;
/// Maximum number of characters of a profile's name.
pub const MAX_PROFILE_NAME: usize = 60;

/// Fields that a profile cannot set, each with the reason.
const ONLY_IN_MISSIONS: [(&str, &str); 9] = [
    ("title", "each mission has its own"),
    ("prompt", "each mission has its own"),
    ("task_id", "each mission has its own"),
    ("request_id", "each mission has its own"),
    ("depends_on", "it names other workers of the same boss"),
    ("context_from", "it names other workers of the same boss"),
    ("worktree", "no two missions can work in one place"),
    ("working_directory", "no two missions can work in one place"),
    ("profile", "a profile cannot use another one"),
];

/// The reason why the value of a field is not accepted.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FieldError {
    #[error("{field} is empty: give a text, or omit it if it is optional")]
    Empty { field: &'static str },
    #[error("{field} has {is} bytes, but at most {max} are allowed: {advice}")]
    TooLong { field: &'static str, is: usize, max: usize, advice: &'static str },
    #[error("{field} contains the control character {character:?}: it must be one line of plain text")]
    Control { field: &'static str, character: char },
    #[error("{field} contains a NUL character: remove it")]
    Nul { field: &'static str },
    #[error("{field} {text:?} begins with a dash, like an option: choose another name")]
    Dash { field: &'static str, text: String },
    #[error("{field} is {is}: it must be from {least} to {max}")]
    Range { field: &'static str, is: String, least: u64, max: u64 },
    #[error("max_cost_usd is {is}: it must be more than 0 and at most {max}")]
    Cost { is: f64, max: f64 },
    #[error(transparent)]
    Backend(#[from] UnknownBackend),
}

type Result<T> = std::result::Result<T, FieldError>;

/// Checks that a text is one line without control characters and characters that change the direction of text. Returns
/// it without surrounding spaces.
pub fn line(field: &'static str, text: String, max: usize) -> Result<String> {
    let text = filled(field, text, max)?;
    match text.chars().find(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) {
        Some(character) => Err(FieldError::Control { field, character }),
        None => Ok(text.trim().to_owned()),
    }
}

/// Checks a line that becomes an argument of a program.
pub fn name(field: &'static str, text: String) -> Result<String> {
    match line(field, text, NAME)? {
        text if text.starts_with('-') => Err(FieldError::Dash { field, text }),
        text => Ok(text),
    }
}

/// Checks a text that a program can take as an argument.
pub fn text(field: &'static str, text: String, max: usize) -> Result<String> {
    let text = filled(field, text, max)?;
    if text.contains('\0') { Err(FieldError::Nul { field }) } else { Ok(text) }
}

fn filled(field: &'static str, text: String, max: usize) -> Result<String> {
    if text.trim().is_empty() {
        return Err(FieldError::Empty { field });
    }
    if text.len() > max {
        let advice = if max == PROMPT { "put long material into a file and name its path" } else { "shorten it" };
        return Err(FieldError::TooLong { field, is: text.len(), max, advice });
    }
    Ok(text)
}

/// Checks that a whole number is from `least` to `max`, inclusive.
pub fn range(field: &'static str, value: u64, least: u64, max: u64) -> Result<u64> {
    if (least..=max).contains(&value) {
        Ok(value)
    } else {
        Err(FieldError::Range { field, is: value.to_string(), least, max })
    }
}

/// Checks an amount of US dollars.
pub fn cost(dollars: f64) -> Result<f64> {
    if dollars > 0.0 && dollars <= MAX_COST_USD {
        Ok(dollars)
    } else {
        Err(FieldError::Cost { is: dollars, max: MAX_COST_USD })
    }
}

/// Checks the name of a backend.
pub fn backend(backends: &Backends, text: String) -> Result<String> {
    let name = name("backend", text)?;
    backends.get(&name)?;
    Ok(name)
}

impl FieldError {
    /// Returns the key of the field in a settings file. `None` for an unknown backend, since two fields name backends.
    pub(super) fn key(&self) -> Option<&'static str> {
        match self {
            Self::Empty { field }
            | Self::TooLong { field, .. }
            | Self::Control { field, .. }
            | Self::Nul { field }
            | Self::Dash { field, .. }
            | Self::Range { field, .. } => Some(field.strip_prefix("the number of ").unwrap_or(field)),
            Self::Cost { .. } => Some("max_cost_usd"),
            Self::Backend(_) => None,
        }
    }
}

/// Returns why a profile cannot set this field of a mission. `None` for any other name.
pub(super) fn why_not_in_profile(field: &str) -> Option<&'static str> {
    ONLY_IN_MISSIONS.iter().find(|(name, _)| *name == field).map(|(_, why)| *why)
}
