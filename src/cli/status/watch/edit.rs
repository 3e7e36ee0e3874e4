//! The editing of a line that the user types. Pure.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Applies a key to a line of input. Returns false if the key does not edit.
pub(super) fn edit(line: &mut String, key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Backspace => drop(line.pop()),
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => line.clear(),
        KeyCode::Char(character) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
            line.push(character)
        }
        _ => return false,
    }
    true
}
