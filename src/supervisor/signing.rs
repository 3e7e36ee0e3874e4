//! The agent that holds the user's keys of GnuPG. A confined worker can ask a running agent, but cannot start one, since
//! it cannot write the folder with the keys. So the agent is started for it, outside of the confinement.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::git::{self, Checkout};

/// Starts the agent if git signs with it here and it does not run. It belongs to the user and stays.
pub fn start_agent(checkout: &Checkout) {
    let home = std::env::var_os("GNUPGHOME").map(PathBuf::from);
    let home = home.or_else(|| Some(etcetera::home_dir().ok()?.join(".gnupg")));
    // Most users have no keys. They need not wait for git.
    if !home.is_some_and(|home| home.is_dir()) {
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
