//! Confinement by the kernel: a program and all processes below it can write only what is granted. The supervisor
//! itself is never confined, and no wrapper program stays in between.
//!
//! `linux.rs` uses Landlock: a short-lived thread restricts itself, starts the program, and ends, since a child inherits
//! from the thread that starts it. `macos.rs` starts the program with a sandbox profile. Both have the same functions.
//!
//! Landlock only allows, and a grant holds for everything below it. A grant of something that a worker could replace by
//! a link must not follow links: see [`Links`]. Not confined: the network, sockets that have a path, and reading, unless
//! paths are named that must not be read.

#[cfg_attr(target_os = "linux", allow(dead_code))]
mod profile;
#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::mission::confined::{Enforcer, Reads};
use crate::mission::hint::{Hint, Hinted};

pub use system::without_effect;
pub(super) use system::{restricted, wrapped};

/// The paths that a confined program can write, and those that it cannot read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteRules {
    grants: Vec<Grant>,
    /// Real paths, none below another.
    unreadable: Vec<PathBuf>,
}

/// A path that a confined program can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub path: PathBuf,
    pub kind: GrantKind,
    pub links: Links,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantKind {
    /// A folder and everything below it.
    Folder,
    /// An existing file, which is not replaced.
    File,
    /// A device, or a folder of devices.
    Device,
}

/// The treatment of symbolic links in the path of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// A link in it is an error, since only a worker can have made it.
    Refused,
    /// Links are followed: the user made them, and no worker can replace them.
    Followed,
}

/// The kernel's answer about what it can enforce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    Yes(Restriction),
    No { why: String },
}

/// The confinement that the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restriction {
    pub by: Enforcer,
    /// The version of the kernel's interface.
    pub abi: Option<u32>,
    /// True if signals to processes outside are refused too.
    pub signals: bool,
    pub reads: Reads,
}

/// The reason why a program was not confined. Then it was not started either.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("cannot let it write {path}")]
    Grant { path: PathBuf, source: io::Error },
    #[error("cannot let it write {path}: a symbolic link leads elsewhere")]
    Link { path: PathBuf },
    #[error("cannot restrict it: {why}")]
    Refused { why: String },
    #[error("cannot restrict it: the thread for it does not start")]
    Thread { source: io::Error },
}

impl Hinted for ConfineError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Grant { .. } => vec![Hint::to("check that it exists and that you may read it")],
            Self::Link { .. } => vec![Hint::to("remove the link if it is not yours")],
            Self::Refused { .. } | Self::Thread { .. } => vec![Hint::Set("confine")],
        }
    }
}

/// Devices that programs and terminals need.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts"];
/// Shared memory, which Python's `multiprocessing` and browsers need.
const SHARED_MEMORY: &str = "/dev/shm";

impl WriteRules {
    /// Returns rules with the devices alone.
    pub fn devices() -> Self {
        let mut rules = Self::default();
        for path in DEVICES.map(Path::new).into_iter().filter(|path| path.exists()) {
            rules.add(path, GrantKind::Device, Links::Followed);
        }
        if Path::new(SHARED_MEMORY).is_dir() {
            rules.add(Path::new(SHARED_MEMORY), GrantKind::Folder, Links::Followed);
        }
        rules
    }

    /// Adds a grant, unless one of a folder above it has it already: what lies there may be a worker's link.
    pub fn add(&mut self, path: &Path, kind: GrantKind, links: Links) {
        let covers = |grant: &Grant| grant.kind == GrantKind::Folder && path.starts_with(&grant.path);
        if self.grants.iter().any(covers) {
            return;
        }
        if kind == GrantKind::Folder {
            self.grants.retain(|grant| !grant.path.starts_with(path));
        }
        self.grants.push(Grant { path: path.to_owned(), kind, links });
    }

    /// Forbids reading these paths and everything below them. They must be real paths.
    pub fn forbid_reading(&mut self, paths: &[PathBuf]) {
        let is_below_another = |path: &PathBuf| paths.iter().any(|other| path != other && path.starts_with(other));
        self.unreadable = paths.iter().filter(|path| !is_below_another(path)).cloned().collect();
    }

    pub fn unreadable(&self) -> &[PathBuf] {
        &self.unreadable
    }

    fn reads(&self) -> Reads {
        if self.unreadable.is_empty() { Reads::All } else { Reads::Limited }
    }

    /// Returns whether a grant allows writing this path.
    pub fn covers(&self, path: &Path) -> bool {
        self.grants.iter().any(|grant| path.starts_with(&grant.path))
    }

    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }
}

/// Asks the kernel for what it can enforce, and checks once that it does: a kernel may report success and enforce
/// nothing.
pub fn support() -> Support {
    static SUPPORT: OnceLock<Support> = OnceLock::new();
    SUPPORT.get_or_init(system::support).clone()
}

#[cfg(test)]
mod tests;
