//! Signed commits in the confinement, where the folder with the user's keys of GnuPG cannot be written. A confined
//! worker can ask a running agent for a signature, but cannot start one, so it is started outside. And GnuPG fails if
//! it cannot write its lock files, so git calls it through a program that switches these off.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::git::{self, Checkout};

/// Runs the user's program for signatures. It asks git for the name of that program, without the settings of the
/// environment.
const PROGRAM: &str = "#!/bin/sh
unset GIT_CONFIG_COUNT
program=$(git config --get gpg.openpgp.program || git config --get gpg.program || echo gpg)
case \"${program##*/}\" in
gpg | gpg2) exec \"$program\" --lock-never \"$@\" ;;
*) exec \"$program\" \"$@\" ;;
esac
";

/// Returns whether the user has a folder for keys. Most users need not wait for git.
pub fn has_keys() -> bool {
    let home = std::env::var_os("GNUPGHOME").map(PathBuf::from);
    let home = home.or_else(|| Some(etcetera::home_dir().ok()?.join(".gnupg")));
    home.is_some_and(|home| home.is_dir())
}

/// Writes [`PROGRAM`] into a folder, and returns its path. A worker can write there too, so no link is followed.
pub fn write_program(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("gpg");
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = File::options().write(true).create_new(true).mode(0o700).open(&path)?;
    file.write_all(PROGRAM.as_bytes())?;
    Ok(path)
}

/// Returns the variables that make git use this program, if the environment already has this number of settings.
pub fn variables(program: &Path, settings: usize) -> BTreeMap<String, OsString> {
    BTreeMap::from([
        (format!("GIT_CONFIG_KEY_{settings}"), "gpg.program".into()),
        (format!("GIT_CONFIG_VALUE_{settings}"), program.into()),
        ("GIT_CONFIG_COUNT".to_owned(), (settings + 1).to_string().into()),
    ])
}

/// Returns the number of settings of git in the environment of this process.
pub fn inherited_settings() -> usize {
    std::env::var("GIT_CONFIG_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Starts the agent if git signs with it here and it does not run. It belongs to the user and stays.
pub fn start_agent(checkout: &Checkout) {
    if !has_keys() {
        return;
    }
    let program = match git::gnupg(checkout) {
        Ok(Some(program)) => program,
        Ok(None) => return,
        Err(error) => return tracing::warn!(%error, "cannot read whether git signs commits"),
    };
    // It needs the agent and, where GnuPG is configured so, the process that holds the public keys. It asks the user
    // for nothing.
    let mut list = Command::new(&program);
    list.args(["--batch", "--no-tty", "--list-secret-keys"]).stdin(Stdio::null()).stdout(Stdio::null());
    if let Err(error) = list.stderr(Stdio::null()).status() {
        tracing::warn!(%error, program, "cannot start the agent that signs commits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_replaces_a_link_and_does_not_follow_it() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("mine");
        std::fs::write(&mine, "mine").unwrap();
        std::os::unix::fs::symlink(&mine, folder.path().join("gpg")).unwrap();
        let written = write_program(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine");
        assert_eq!(std::fs::read_to_string(written).unwrap(), PROGRAM);
    }

    #[test]
    fn setting_follows_those_of_the_environment() {
        let set = variables(Path::new("/d/gpg"), 2);
        let names: Vec<&str> = set.keys().map(String::as_str).collect();
        assert_eq!(names, ["GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_2", "GIT_CONFIG_VALUE_2"]);
        assert_eq!(set["GIT_CONFIG_COUNT"], "3");
    }
}
