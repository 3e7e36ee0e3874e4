//! Confinement by Landlock. The rights to write and, where the kernel can, the scopes of signals and abstract sockets
//! are handled; executing, TCP and sockets with a path are not (`ResolveUnix` would also cut programs off from
//! ssh-agent, docker and databases).
//!
//! Reading is handled only if something must not be read. Since rules only allow, everything beside it is then allowed
//! ([`readable`]): the folders on the way to it cannot be listed, and what is created in them later cannot be read.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, BitFlags, LandlockStatus, PathBeneath, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{ConfineError, Grant, GrantKind, Links, Restriction, Support, WriteRules};
use crate::mission::confined::{Enforcer, Reads};

/// The first version that can refuse truncating. Before the second one, no file can be renamed between folders.
const LEAST: u32 = 3;
/// The version from which signals can be refused.
const SIGNALS: u32 = 6;
/// The last version whose rights are handled.
const LAST: u32 = 8;
/// File systems on which rules were seen to have an effect (ext2 to ext4, XFS, tmpfs, overlayfs), by their numbers in
/// `linux/magic.h`.
const TRIED: [u32; 4] = [0xef53, 0x5846_5342, 0x0102_1994, 0x794c_7630];

pub fn support() -> Support {
    let thread = std::thread::Builder::new().name("confinement".to_owned());
    let restricted = std::thread::scope(|scope| {
        let checking = thread.spawn_scoped(scope, || restrict(&WriteRules::default()).map(|done| (done, may_write())));
        match checking.map(|thread| thread.join()) {
            Ok(Ok(checked)) => checked,
            Ok(Err(_)) => Err(ConfineError::Refused { why: "the check ended early".to_owned() }),
            Err(source) => Err(ConfineError::Thread { source }),
        }
    });
    match restricted {
        Ok((_, true)) => {
            Support::No { why: "the kernel reports that Landlock is enforced, but enforces nothing".to_owned() }
        }
        Ok((restriction, false)) => Support::Yes(restriction),
        Err(ConfineError::Refused { why }) => Support::No { why },
        Err(error) => Support::No { why: error.to_string() },
    }
}

/// Runs `start` in a thread that is restricted by the rules. What it starts inherits the restriction.
pub fn restricted<T: Send>(
    rules: &WriteRules,
    start: impl FnOnce() -> T + Send,
) -> Result<(T, Restriction), ConfineError> {
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name("confined start".to_owned());
    std::thread::scope(|scope| {
        let starting = thread.spawn_scoped(scope, || {
            let restriction = restrict(rules)?;
            let _runtime = runtime.enter();
            Ok((start(), restriction))
        });
        match starting.map_err(|source| ConfineError::Thread { source })?.join() {
            Ok(started) => started,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Returns the command line of a program that is started by [`restricted`].
pub fn wrapped(
    _rules: &WriteRules,
    program: &Path,
    args: &[OsString],
) -> Result<(PathBuf, Vec<OsString>), ConfineError> {
    Ok((program.to_owned(), args.to_vec()))
}

/// Returns a folder of the work in which the rules have no effect: they grant it, but writing is refused. A rule belongs
/// to an inode, and some file systems, such as 9p, have another inode at each access. An error is left to the start.
pub fn without_effect(rules: &WriteRules) -> Option<PathBuf> {
    let is_work = |grant: &&Grant| grant.kind == GrantKind::Folder && grant.links == Links::Refused;
    let untried = rules.grants().iter().filter(is_work).filter(|grant| !was_tried(grant));
    let folders: Vec<&PathBuf> = untried.map(|grant| &grant.path).collect();
    if folders.is_empty() {
        return None;
    }
    let refused = || folders.into_iter().filter(|folder| !is_writable(folder)).collect::<Vec<_>>();
    let (refused, _) = restricted(rules, refused).ok()?;
    // The user may not be able to write there either.
    refused.into_iter().find(|folder| is_writable(folder)).cloned()
}

/// Returns whether a grant is on a file system on which rules are known to have an effect.
fn was_tried(grant: &Grant) -> bool {
    // The type of this field depends on the architecture.
    !has_no_effect(grant) && rustix::fs::statfs(&grant.path).is_ok_and(|found| TRIED.contains(&(found.f_type as u32)))
}

/// Returns whether this thread may create a file in a folder. The file has no name, so none is left behind. Where the
/// file system has no such files, it is an empty folder, which git never sees.
pub(super) fn is_writable(folder: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
        opened => return opened.err() != Some(Errno::ACCESS),
    }
    let made = tempfile::Builder::new().prefix(".orchestrator-boss-").tempdir_in(folder);
    !made.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Returns whether this thread may write. Even a device needs a rule.
fn may_write() -> bool {
    File::options().write(true).open("/dev/null").is_ok()
}

/// Restricts the calling thread.
fn restrict(rules: &WriteRules) -> Result<Restriction, ConfineError> {
    if enforces_nothing() {
        return Ok(Restriction { by: Enforcer::Landlock, abi: Some(LAST), signals: true, reads: rules.reads() });
    }
    let asked = ABI::from(most().min(LAST) as i32);
    if most() == 0 {
        return Err(not_built());
    }
    let reading = match rules.reads() {
        Reads::All => BitFlags::empty(),
        Reads::Limited => AccessFs::ReadFile | AccessFs::ReadDir,
    };
    let handled = AccessFs::from_write(asked) | reading;
    let ruleset = Ruleset::default().handle_access(handled).map_err(refused)?;
    let ruleset = if most() < SIGNALS {
        ruleset
    } else {
        ruleset.scope(Scope::Signal | Scope::AbstractUnixSocket).map_err(refused)?
    };
    let mut ruleset = ruleset.create().map_err(refused)?;
    for grant in rules.grants().iter().filter(|grant| !has_no_effect(grant)) {
        let opened = match open(grant) {
            // A cache that was removed meanwhile.
            Err(ConfineError::Grant { source, .. }) if is_optional(grant, &source) => continue,
            opened => opened?,
        };
        let rights = rights(grant.kind, rules.unreadable(), &grant.path) & handled;
        ruleset = ruleset.add_rule(PathBeneath::new(opened, rights)).map_err(refused)?;
    }
    for path in readable(rules.unreadable()) {
        // Skips paths that were removed meanwhile or that this user cannot read.
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Ok(opened) = rustix::fs::open(&path, flags, Mode::empty()) else { continue };
        let rights = if path.is_dir() { reading } else { AccessFs::ReadFile.into() };
        ruleset = ruleset.add_rule(PathBeneath::new(opened, rights)).map_err(refused)?;
    }
    answer(&ruleset.restrict_self().map_err(refused)?, rules.reads())
}

/// Returns everything beside these paths: the entries of the folders above them, without links, which are followed to
/// where they lead.
fn readable(unreadable: &[PathBuf]) -> Vec<PathBuf> {
    let above: BTreeSet<&Path> = unreadable.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    let entries = above.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let no_links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
    no_links.map(|entry| entry.path()).filter(|path| !above.contains(&**path) && !unreadable.contains(path)).collect()
}

/// Reads the kernel's answer.
fn answer(status: &RestrictionStatus, reads: Reads) -> Result<Restriction, ConfineError> {
    let refuse = |why: &str| Err(ConfineError::Refused { why: why.to_owned() });
    let abi = match status.landlock {
        LandlockStatus::NotImplemented => return Err(not_built()),
        LandlockStatus::NotEnabled => return refuse("Landlock is switched off in this kernel"),
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            kernel_abi.map_or(effective_abi as u32, i32::cast_unsigned).min(most())
        }
    };
    if abi < LEAST {
        return refuse(&format!("this kernel has version {abi} of Landlock, and {LEAST} (Linux 6.2) is needed"));
    }
    if status.ruleset == RulesetStatus::NotEnforced || !status.no_new_privs {
        return refuse("the kernel did not enforce Landlock");
    }
    Ok(Restriction { by: Enforcer::Landlock, abi: Some(abi), signals: abi >= SIGNALS, reads })
}

fn not_built() -> ConfineError {
    ConfineError::Refused { why: "this kernel or container has no Landlock".to_owned() }
}

fn refused(error: impl std::error::Error) -> ConfineError {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        why = error.to_string();
        cause = error.source();
    }
    ConfineError::Refused { why }
}

/// Returns whether to behave as a kernel that reports success and enforces nothing. Only a test of a debug build does.
fn enforces_nothing() -> bool {
    cfg!(debug_assertions) && std::env::var_os("ORCHESTRATOR_TEST_LANDLOCK_IDLE").is_some()
}

/// Returns whether to behave as a file system on which a rule has no effect. Only a test of a debug build does.
fn has_no_effect(grant: &Grant) -> bool {
    let without = || std::env::var_os("ORCHESTRATOR_TEST_LANDLOCK_WITHOUT_EFFECT");
    cfg!(debug_assertions) && without().is_some_and(|folder| grant.path.starts_with(folder))
}

/// Returns the version that may be used at most. A test can lower it in a debug build.
fn most() -> u32 {
    #[cfg(debug_assertions)]
    if let Some(most) = std::env::var("ORCHESTRATOR_TEST_LANDLOCK_ABI").ok().and_then(|most| most.parse().ok()) {
        return most;
    }
    u32::MAX
}

/// Returns the rights of a grant. A grant that contains an unreadable path, or lies in one, allows no reading.
fn rights(kind: GrantKind, unreadable: &[PathBuf], path: &Path) -> BitFlags<AccessFs> {
    let overlaps = |other: &PathBuf| other.starts_with(path) || path.starts_with(other);
    let reading = match kind {
        _ if unreadable.iter().any(overlaps) => BitFlags::empty(),
        GrantKind::Folder => AccessFs::ReadFile | AccessFs::ReadDir,
        GrantKind::File | GrantKind::Device => AccessFs::ReadFile.into(),
    };
    let writing = match kind {
        GrantKind::Folder => AccessFs::from_write(ABI::V5) & !(AccessFs::MakeChar | AccessFs::MakeBlock),
        GrantKind::File => AccessFs::WriteFile | AccessFs::Truncate,
        GrantKind::Device => AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
    };
    reading | writing
}

fn is_optional(grant: &Grant, error: &io::Error) -> bool {
    grant.links == Links::Followed && error.kind() == io::ErrorKind::NotFound
}

/// Opens the path of a grant. The rule belongs to the opened file, even if another one gets its name later.
fn open(grant: &Grant) -> Result<OwnedFd, ConfineError> {
    let resolve = match grant.links {
        Links::Refused => ResolveFlags::NO_SYMLINKS,
        Links::Followed => ResolveFlags::empty(),
    };
    let folder = if grant.kind == GrantKind::Folder { OFlags::DIRECTORY } else { OFlags::empty() };
    let flags = OFlags::PATH | OFlags::CLOEXEC | folder;
    rustix::fs::openat2(rustix::fs::CWD, &grant.path, flags, Mode::empty(), resolve).map_err(|error| match error {
        Errno::LOOP => ConfineError::Link { path: grant.path.clone() },
        error => ConfineError::Grant { path: grant.path.clone(), source: io::Error::from(error) },
    })
}
