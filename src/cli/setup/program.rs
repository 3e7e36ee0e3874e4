//! The command line with which a client starts this program.

use std::env;
use std::io;
use std::path::{Path, PathBuf, absolute};

use super::SetupError;
use super::entry::NAME;
use crate::attempt::state_dir;
use crate::cli::places::Places;
use crate::cli::shell::quoted;
use crate::config::Settings;

/// Arguments of `npx` that start this program.
const NPX: [&str; 2] = ["-y", NAME];

/// Returns whether `npx` runs this program, from a cache in which it may not stay.
fn is_from_npx() -> bool {
    env::current_exe().is_ok_and(|this| this.components().any(|part| part.as_os_str() == "_npx"))
}

/// Returns the words with which a user starts this program in a shell.
pub fn in_a_shell() -> String {
    match command(true) {
        Ok(program) if is_from_npx() => [&program, NPX[0], NPX[1]].join(" "),
        Ok(program) if program == NAME => program,
        Ok(program) => quoted(Path::new(&program)),
        Err(_) => NAME.to_owned(),
    }
}

/// Returns the program that a client starts; [`arguments`] belong to it.
///
/// The user's own settings get the absolute path, since clients are started with different PATHs (from a desktop with
/// almost none). It is the entry on the PATH and not its target: package managers put a link there that an update
/// moves, while they remove the target. A program that is not on the PATH, as in a build tree, keeps its own path.
///
/// A project's settings get the bare name if the PATH leads to this program, since other users have it elsewhere.
pub fn command(shared: bool) -> io::Result<String> {
    if is_from_npx() {
        return Ok("npx".to_owned());
    }
    let this = env::current_exe()?;
    if !this.exists() {
        return Err(io::Error::other(format!(
            "{} was replaced or removed while it runs: run it again",
            this.display()
        )));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    Ok(match on_the_path(&this, &folders) {
        Some(_) if shared && leads_to(&this, &folders) => NAME.to_owned(),
        Some(entry) => text(&entry)?,
        None => text(&this)?,
    })
}

/// Converts a path to text. A lossy conversion would name another file.
fn text(path: &Path) -> io::Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| io::Error::other(format!("{} is not valid UTF-8: use another path", path.display())));
    text.map(str::to_owned)
}

fn on_the_path(this: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    let real = this.canonicalize().ok()?;
    let entries = folders.iter().map(|folder| folder.join(NAME));
    let is_this = |entry: &PathBuf| entry.canonicalize().is_ok_and(|entry| entry == real);
    entries.into_iter().find(is_this)
}

/// Returns whether the first program of our name in these folders is this one.
fn leads_to(this: &Path, folders: &[PathBuf]) -> bool {
    let first = folders.iter().map(|folder| folder.join(NAME)).find(|entry| entry.is_file());
    first.and_then(|entry| entry.canonicalize().ok()) == this.canonicalize().ok()
}

/// Checks that the server can start with these settings and this state directory.
pub fn check(places: &Places) -> Result<(), SetupError> {
    if let Some(path) = &places.config {
        Settings::load(Some(path)).map_err(SetupError::Settings)?;
    }
    if let Some(path) = &places.state_dir {
        state_dir::is_there(path).map_err(SetupError::StateDir)?;
    }
    Ok(())
}

/// Returns the arguments of the program that a client starts: the options that `setup` was called with.
pub fn arguments(places: &Places) -> io::Result<Vec<String>> {
    let mut arguments: Vec<String> = NPX.iter().filter(|_| is_from_npx()).map(|word| (*word).to_owned()).collect();
    for (option, path) in [("--config", &places.config), ("--state-dir", &places.state_dir)] {
        if let Some(path) = path {
            arguments.extend([option.to_owned(), text(&absolute(path)?)?]);
        }
    }
    Ok(arguments)
}
