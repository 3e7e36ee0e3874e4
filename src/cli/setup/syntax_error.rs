//! The position of a syntax error in a settings file.

use thiserror::Error;

/// A mistake in a settings file. Lines and columns begin with 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct SyntaxError {
    pub line: usize,
    pub column: usize,
    pub reason: String,
}

impl SyntaxError {
    pub fn at(text: &str, at: usize, reason: String) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line..].chars().count() + 1, reason }
    }
}
