//! The host that this process runs on. A pid, a lock or a clock of another host means nothing here.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::platform;

/// A host during one boot, and on Linux one namespace of processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The name, for people. It is not unique.
    pub name: String,
    /// Differs between hosts and boots on Linux. Constant on macOS, where all hosts count as one. Empty if unknown.
    pub boot: String,
}

impl Host {
    pub fn own() -> &'static Self {
        static OWN: OnceLock<Host> = OnceLock::new();
        OWN.get_or_init(|| {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            Self { name, boot: platform::host() }
        })
    }

    /// Returns whether pids, locks and clocks of this host are those of this process.
    pub fn is_own(&self) -> bool {
        self.boot == Self::own().boot
    }

    /// Returns whether this is certainly another host, and not this one before it booted again.
    pub fn is_another(&self) -> bool {
        !self.is_own() && self.name != Self::own().name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_boot_is_another_host() {
        let own = Host::own();
        assert!(own.is_own());
        assert!(!own.name.is_empty());
        assert!(!Host { boot: "before".to_owned(), ..own.clone() }.is_own());
        assert!(Host { name: "renamed".to_owned(), ..own.clone() }.is_own());
        assert!(!Host { boot: "before".to_owned(), ..own.clone() }.is_another(), "it has booted again");
        assert!(Host { name: "n1".to_owned(), boot: "another".to_owned() }.is_another());
    }
}
