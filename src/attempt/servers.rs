//! The servers of a state directory, and whether they live.
//!
//! On one host a server lives as long as it holds the lock on its file. Locks may not hold between hosts, so on a
//! network file system each server also keeps a file with its host and a number that it advances. A server on another
//! host counts as alive until this process has watched the number stand still for [`STILL`], so nothing is concluded
//! from a single reading. While one lives, no server of another host may open the state directory for writing. The same
//! holds for a supervisor that its server has started on its own host, since only servers there can follow it. If the
//! servers cannot be listed, nothing is known about other hosts: every server counts as alive, and the state directory
//! stays closed.
//!
//! The file is only ever overwritten with content of the same length: its name and its size do not change, so other
//! hosts see each number at once, and a full disk does not prevent the update.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state_dir::StateDir;
use crate::files::lease::{self, Lease};
use crate::files::{self, FileError};
use crate::mission::hint::with_hints;
use crate::mission::id::{ServerId, WorkerId};
use crate::process::{self, Host};

/// Interval at which a server advances its number.
const BEAT: Duration = Duration::from_secs(5);
/// Interval at which a server checks that no other host has taken over.
const CHECK: Duration = Duration::from_secs(1);
/// Time without a change of the number after which its server counts as dead.
pub const STILL: Duration = Duration::from_secs(30);
/// Length of the file in bytes. The names of hosts are shorter.
const LENGTH: usize = 512;

/// A view of the servers of one state directory. It watches those on other hosts.
#[derive(Debug)]
pub struct Servers {
    dir: StateDir,
    is_shared: OnceLock<bool>,
    watched: Mutex<HashMap<ServerId, Watched>>,
    /// True if the last listing failed, which is logged once.
    is_unreadable: AtomicBool,
}

/// A process on another host, because of which that host owns the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub role: Role,
    pub host: String,
    /// True if the process was seen to live. Otherwise it may be dead, and is still being watched.
    pub is_alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Server,
    Supervisor,
}

impl Role {
    /// Returns the process in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "a server",
            Self::Supervisor => "a running worker",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Presence {
    role: Role,
    host: Host,
    heartbeat: u64,
}

impl Presence {
    /// Reads a presence file. `None` if it was removed a moment ago.
    fn read(path: &Path) -> Result<Option<Self>, FileError> {
        // A file that a crash of its host has damaged does not change, so its server soon counts as dead.
        let damaged = || {
            let host = Host { name: "another host".to_owned(), boot: String::new() };
            Self { role: Role::Server, host, heartbeat: 0 }
        };
        match fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| damaged()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::read(path, source)),
        }
    }
}

/// The observations of a server on another host by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watched {
    heartbeat: u64,
    /// When this heartbeat was first seen.
    since: Duration,
    has_advanced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    /// Not watched for long enough.
    Unknown,
    Dead,
}

impl Watched {
    fn next(before: Option<Self>, heartbeat: u64, now: Duration) -> Self {
        match before {
            Some(before) if before.heartbeat == heartbeat => before,
            before => Self { heartbeat, since: now, has_advanced: before.is_some() },
        }
    }

    fn life(&self, now: Duration) -> Life {
        match now.saturating_sub(self.since) {
            still if still >= STILL => Life::Dead,
            _ if self.has_advanced => Life::Alive,
            _ => Life::Unknown,
        }
    }
}

impl Servers {
    /// Returns the servers of the state directory with this root, which need not exist.
    pub fn of(root: &Path) -> Self {
        Self {
            dir: StateDir::at(root),
            is_shared: OnceLock::new(),
            watched: Mutex::default(),
            is_unreadable: AtomicBool::new(false),
        }
    }

    /// Returns whether this server lives, as far as is known.
    pub fn is_alive(&self, server: &ServerId) -> bool {
        // A free lock here says nothing about a server on another host.
        let Ok(elsewhere) = self.elsewhere() else { return true };
        match elsewhere.into_iter().find(|(id, _)| id == server) {
            Some((id, presence)) => self.watch(id, &presence, process::monotonic()) != Life::Dead,
            None => lease::is_held(&self.dir.server_lock(server)),
        }
    }

    /// Returns a server on another host that lives, as far as is known. After an error, there may be one.
    pub fn owner_elsewhere(&self) -> Result<Option<Owner>, FileError> {
        let now = process::monotonic();
        let lives = self.elsewhere()?.into_iter().map(|(id, presence)| {
            let life = self.watch(id, &presence, now);
            (presence, life)
        });
        let owner =
            |(Presence { role, host, .. }, life)| Owner { role, host: host.name, is_alive: life == Life::Alive };
        let owners = lives.filter(|(_, life)| *life != Life::Dead).map(owner);
        Ok(owners.max_by_key(|owner| (owner.is_alive, owner.role == Role::Server)))
    }

    /// Removes the files of dead servers, so that a server that was only stopped for a while notices that it was given
    /// up. `own` is left out, since it has not taken its lock yet.
    pub fn forget_dead(&self, own: &ServerId) {
        let Ok(present) = self.present() else { return };
        for (id, presence) in present.into_iter().filter(|(id, _)| id != own) {
            let is_dead = if presence.host == *Host::own() {
                !lease::is_held(&self.dir.server_lock(&id))
            } else {
                self.watch(id.clone(), &presence, process::monotonic()) == Life::Dead
            };
            if is_dead {
                self.remove(&id);
            }
        }
    }

    /// Removes the files of a dead server.
    pub fn remove(&self, server: &ServerId) {
        for path in [self.dir.server_lock(server), self.dir.server_presence(server)] {
            let _ = fs::remove_file(path);
        }
    }

    /// Announces a server of this process to other hosts. `None` where no other host can see it.
    pub fn announce(&self, server: &ServerId) -> Result<Option<Heartbeat>, FileError> {
        if !self.is_shared() {
            return Ok(None);
        }
        Heartbeat::begin(self.dir.server_presence(server), Role::Server).map(Some)
    }

    /// Announces the supervisor of an attempt to other hosts, with a lock for checks on this host. `None` where no
    /// other host can see it.
    pub fn announce_supervisor(
        &self,
        worker: &WorkerId,
        attempt: u32,
    ) -> Result<Option<(Heartbeat, Lease)>, FileError> {
        if !self.is_shared() {
            return Ok(None);
        }
        let id = ServerId::from(format!("{worker}.{attempt}"));
        let lease = lease::wait_for(&self.dir.server_lock(&id))?;
        Ok(Some((Heartbeat::begin(self.dir.server_presence(&id), Role::Supervisor)?, lease)))
    }

    fn watch(&self, id: ServerId, presence: &Presence, now: Duration) -> Life {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = Watched::next(watched.get(&id).copied(), presence.heartbeat, now);
        watched.insert(id, seen);
        seen.life(now)
    }

    fn elsewhere(&self) -> Result<Vec<(ServerId, Presence)>, FileError> {
        Ok(self.present()?.into_iter().filter(|(_, presence)| presence.host != *Host::own()).collect())
    }

    /// Returns the servers with a presence file.
    fn present(&self) -> Result<Vec<(ServerId, Presence)>, FileError> {
        if !self.is_shared() {
            return Ok(Vec::new());
        }
        let listed = self.list();
        let was_unreadable = self.is_unreadable.swap(listed.is_err(), Ordering::Relaxed);
        if let Err(error) = listed.as_ref()
            && !was_unreadable
        {
            tracing::warn!(error = %with_hints(error), "cannot see which servers live; all of them count as alive");
        }
        listed
    }

    /// Reads all presence files. The folder is listed, since a host that asks for a name before another host creates it
    /// may not see it for a while.
    fn list(&self) -> Result<Vec<(ServerId, Presence)>, FileError> {
        let folder = self.dir.servers();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // No server has opened the state directory yet.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(FileError::read(&folder, source)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(|source| FileError::read(&folder, source))?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            let presence = Presence::read(&folder.join(&name))?;
            found.extend(presence.map(|presence| (ServerId::from(id.to_owned()), presence)));
        }
        Ok(found)
    }

    /// Returns whether other hosts can see the state directory.
    fn is_shared(&self) -> bool {
        *self.is_shared.get_or_init(|| process::network_file_system(self.dir.root()).is_some())
    }
}

/// The announcement of a server to other hosts. It is removed when it is dropped.
#[derive(Debug)]
pub struct Heartbeat {
    path: PathBuf,
    presence: Presence,
    checked: Duration,
    written: Duration,
}

impl Heartbeat {
    fn begin(path: PathBuf, role: Role) -> Result<Self, FileError> {
        let now = process::monotonic();
        let presence = Presence { role, host: Host::own().clone(), heartbeat: 1 };
        let fail = |source| FileError::write(&path, source);
        let file = files::private().write(true).create_new(true).open(&path).map_err(fail)?;
        let heartbeat = Self { path: path.clone(), presence, checked: now, written: now };
        heartbeat.write(file).map_err(fail)?;
        files::sync_parent(&path)?;
        Ok(heartbeat)
    }

    /// Keeps the announcement up to date. Returns `false` if another host may have given this server up, after which it
    /// must not write.
    pub fn keep(&mut self) -> bool {
        let now = process::monotonic();
        if now < self.checked + CHECK {
            return true;
        }
        self.checked = now;
        // The file is opened each time: a network file system then asks its file server whether the file still exists.
        let opened = File::options().write(true).open(&self.path);
        let is_due = now >= self.written + BEAT;
        let kept = opened.and_then(|file| if is_due { self.beat(file, now) } else { Ok(()) });
        match kept {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle) => false,
            Err(error) => {
                tracing::warn!(%error, "cannot show other hosts that this server lives");
                now < self.written + STILL - BEAT
            }
        }
    }

    fn beat(&mut self, file: File, now: Duration) -> std::io::Result<()> {
        self.presence.heartbeat += 1;
        self.write(file)?;
        self.written = now;
        Ok(())
    }

    fn write(&self, mut file: File) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(&self.presence)?;
        text.resize(text.len().max(LENGTH), b' ');
        file.write_all(&text)?;
        file.sync_data()
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if self.presence.role == Role::Supervisor {
            let _ = fs::remove_file(self.path.with_extension("lock"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_is_decided_by_own_watching() {
        // The numbers that were seen, each with the second; then the second of the check.
        type Row<'a> = (&'a [(u64, u64)], u64, Life);
        let rows: [Row<'_>; 8] = [
            (&[(7, 100)], 100, Life::Unknown),
            (&[(7, 100)], 129, Life::Unknown),
            (&[(7, 100)], 130, Life::Dead),
            (&[(7, 100), (7, 110), (7, 129)], 130, Life::Dead),
            (&[(7, 100), (8, 129)], 129, Life::Alive),
            (&[(7, 100), (8, 129)], 158, Life::Alive),
            (&[(7, 100), (8, 129)], 159, Life::Dead),
            // It stood still, and goes on.
            (&[(7, 100), (7, 200), (8, 201)], 201, Life::Alive),
        ];
        for (seen, at, life) in rows {
            let watched = seen.iter().fold(None, |before, (heartbeat, second)| {
                Some(Watched::next(before, *heartbeat, Duration::from_secs(*second)))
            });
            assert_eq!(watched.unwrap().life(Duration::from_secs(at)), life, "{seen:?} at {at}");
        }
    }

    fn servers(folder: &Path, is_shared: bool) -> Servers {
        StateDir::open(folder).unwrap();
        Servers { is_shared: OnceLock::from(is_shared), ..Servers::of(folder) }
    }

    fn announce_elsewhere(servers: &Servers, id: &ServerId, heartbeat: u64) {
        let host = Host { name: "login1".to_owned(), boot: "another".to_owned() };
        let text = serde_json::to_vec(&Presence { role: Role::Server, host, heartbeat }).unwrap();
        fs::write(servers.dir.server_presence(id), text).unwrap();
    }

    #[test]
    fn lock_decides_on_one_host() {
        let folder = tempfile::tempdir().unwrap();
        for is_shared in [false, true] {
            let servers = servers(folder.path(), is_shared);
            let id = ServerId::from("s-1");
            let heartbeat = servers.announce(&id).unwrap();
            assert_eq!(heartbeat.is_some(), is_shared);
            let lease = lease::take(&servers.dir.server_lock(&id)).unwrap();
            assert!(servers.is_alive(&id));
            servers.forget_dead(&ServerId::from("s-2"));
            assert!(servers.is_alive(&id));
            drop(lease);
            assert!(!servers.is_alive(&id));
            assert_eq!(servers.owner_elsewhere().unwrap(), None);
            servers.forget_dead(&id);
            assert_eq!(servers.dir.server_presence(&id).exists(), is_shared, "its own stays");
            servers.forget_dead(&ServerId::from("s-2"));
            assert!(!servers.dir.server_presence(&id).exists());
        }
    }

    #[test]
    fn server_elsewhere_is_alive_until_it_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        let (servers, id) = (servers(folder.path(), true), ServerId::from("s-1"));
        announce_elsewhere(&servers, &id, 1);
        let owner = |is_alive| Some(Owner { role: Role::Server, host: "login1".to_owned(), is_alive });
        assert!(servers.is_alive(&id), "its lock is free, which means nothing");
        assert_eq!(servers.owner_elsewhere().unwrap(), owner(false));
        announce_elsewhere(&servers, &id, 2);
        assert_eq!(servers.owner_elsewhere().unwrap(), owner(true));
        let presence = servers.elsewhere().unwrap().remove(0).1;
        assert_eq!(servers.watch(id.clone(), &presence, process::monotonic() + STILL), Life::Dead);
        servers.forget_dead(&ServerId::from("s-2"));
        assert!(servers.dir.server_presence(&id).exists(), "it is alive at this moment");
    }

    #[test]
    fn damaged_presence_counts_as_alive() {
        let folder = tempfile::tempdir().unwrap();
        let (servers, id) = (servers(folder.path(), true), ServerId::from("s-1"));
        fs::write(servers.dir.server_presence(&id), "").unwrap();
        assert!(servers.is_alive(&id));
        assert_eq!(servers.owner_elsewhere().unwrap().map(|owner| owner.is_alive), Some(false));
    }

    /// The server may run on another host, even if its lock on this host is free and it cannot be seen for long.
    #[test]
    fn server_counts_as_alive_if_it_cannot_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (servers, id) = (servers(folder.path(), true), ServerId::from("s-1"));
        let presence = servers.dir.server_presence(&id);
        // Not even a privileged user can read a folder as a file, or a file as a folder.
        fs::create_dir(&presence).unwrap();
        assert!(servers.is_alive(&id));
        assert!(matches!(servers.owner_elsewhere(), Err(FileError::Read { path, .. }) if path == presence));
        servers.forget_dead(&ServerId::from("s-2"));
        assert!(presence.exists());

        fs::remove_dir_all(servers.dir.servers()).unwrap();
        fs::write(servers.dir.servers(), "").unwrap();
        assert!(servers.is_alive(&id));
        assert!(
            matches!(servers.owner_elsewhere(), Err(FileError::Read { path, .. }) if path == servers.dir.servers())
        );
    }

    #[test]
    fn unused_state_directory_has_no_servers() {
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers { is_shared: OnceLock::from(true), ..Servers::of(&folder.path().join("state")) };
        assert_eq!(servers.owner_elsewhere().unwrap(), None);
        assert!(!servers.is_alive(&ServerId::from("s-1")));
    }

    #[test]
    fn removed_presence_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (servers, id) = (servers(folder.path(), true), ServerId::from("s-1"));
        let mut heartbeat = servers.announce(&id).unwrap().unwrap();
        let read = || fs::read(servers.dir.server_presence(&id)).unwrap();
        let first = read();
        assert!(heartbeat.keep());
        assert_eq!(read(), first, "it is too early");
        (heartbeat.checked, heartbeat.written) = (Duration::ZERO, Duration::ZERO);
        assert!(heartbeat.keep());
        assert_eq!((read() != first, read().len()), (true, first.len()));
        fs::remove_file(servers.dir.server_presence(&id)).unwrap();
        assert!(heartbeat.keep(), "it was checked a moment ago");
        heartbeat.checked = Duration::ZERO;
        assert!(!heartbeat.keep());
    }
}
