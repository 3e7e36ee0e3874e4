//! The inbox of an attempt: numbered files, with instructions to the supervisor.
//!
//! It has many writers on several hosts and no lock, since locks may not hold between hosts. Each entry is created
//! exclusively under the number after the last, and a writer that finds the number taken reads that entry and tries the
//! next one. The end of the inbox is an entry too, which only its reader creates, or a server where there is no reader.
//! So an entry is either before the end, and read, or refused.
//!
//! On a network file system, a host that asked for a name too early may not see it until half a minute after another
//! host has created it. Therefore no name is asked for that was not listed, or announced in the file `notify`, which
//! exists from the start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::worker_dir::AttemptDir;
use crate::files::{self, FileError};
use crate::mission::message::{Author, Cancelled};
use crate::mission::question::Decision;

/// An instruction to a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxEntry {
    pub id: Uuid,
    pub at: Timestamp,
    /// The author. `None` if the server wrote it on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Author>,
    #[serde(flatten)]
    pub instruction: Instruction,
}

impl InboxEntry {
    /// Returns the text if this is a message.
    pub fn into_text(self) -> Option<String> {
        match self.instruction {
            Instruction::Message { text, .. } => Some(text),
            Instruction::Cancel { .. } | Instruction::OverBudget { .. } | Instruction::Answer { .. } => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Instruction {
    Message {
        text: String,
        delivery: Delivery,
    },
    Cancel {
        reason: String,
    },
    /// The budget of its boss is used up.
    OverBudget {
        reason: String,
    },
    /// The decision of a boss or the user on an open question. The first one counts.
    Answer {
        question: String,
        decision: Decision,
        /// The reason of a denial, if the CLI takes one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Live if the CLI supports it, or else at the end of the turn.
    #[default]
    WhenReady,
    /// Interrupts the current turn.
    Interrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostResult {
    Accepted,
    /// The attempt is over. A message opens the next one.
    Closed,
}

/// A file of the inbox.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Record {
    /// The end of the inbox. No record follows it.
    Closed,
    #[serde(untagged)]
    Entry(InboxEntry),
}

impl AttemptDir {
    pub(super) fn inbox(&self) -> PathBuf {
        self.root().join("inbox")
    }

    fn record_path(&self, number: usize) -> PathBuf {
        self.inbox().join(format!("{number:06}.json"))
    }

    /// Announces the number of records to readers on other hosts.
    fn notify(&self) -> PathBuf {
        self.inbox().join("notify")
    }

    /// The end of the inbox, written in advance, so that it can be closed on a full disk.
    fn closing(&self) -> PathBuf {
        self.inbox().join("closing")
    }

    /// Completes the folder of the inbox.
    pub(super) fn make_inbox(&self) -> Result<(), FileError> {
        if self.notify().exists() { Ok(()) } else { files::replace(&self.notify(), b"0", false) }
    }

    /// Reserves disk space for the end of the inbox.
    pub(super) fn reserve_inbox_end(&self) -> Result<(), FileError> {
        files::replace_json(&self.closing(), &Record::Closed, false)
    }

    pub fn post(&self, inbox_entry: &InboxEntry) -> Result<PostResult, FileError> {
        let posted = self.append(|path| files::create_json_once(path, &Record::Entry(inbox_entry.clone())))?;
        if posted == PostResult::Accepted {
            self.announce();
        }
        Ok(posted)
    }

    /// Returns the entries from number `from` on, in the order in which they were posted.
    pub fn inbox_entries(&self, from: usize) -> Result<Vec<InboxEntry>, FileError> {
        let mut inbox_entries = Vec::new();
        for number in from..self.count_records()?.max(self.announced()) {
            match files::read_json(&self.record_path(number))? {
                Some(Record::Entry(inbox_entry)) => inbox_entries.push(inbox_entry),
                Some(Record::Closed) | None => break,
            }
        }
        Ok(inbox_entries)
    }

    /// Closes the inbox, unless there are entries from number `read` on. If there are, some of them are returned, and
    /// the inbox stays open.
    pub fn close_inbox(&self, read: usize) -> Result<Vec<InboxEntry>, FileError> {
        let end = self.record_path(read);
        match self.create_end(&end) {
            Err(FileError::Exists { .. }) => match files::read_existing_json(&end)? {
                Record::Closed => Ok(Vec::new()),
                Record::Entry(inbox_entry) => Ok(vec![inbox_entry]),
            },
            closed => closed.map(|()| Vec::new()),
        }
    }

    /// Closes the inbox of an attempt that has no supervisor, and returns all entries.
    pub fn close_inbox_unread(&self) -> Result<Vec<InboxEntry>, FileError> {
        self.make()?;
        self.append(|path| self.create_end(path))?;
        self.inbox_entries(0)
    }

    fn create_end(&self, path: &Path) -> Result<(), FileError> {
        if self.closing().exists() {
            files::move_once(&self.closing(), path)
        } else {
            files::create_json_once(path, &Record::Closed)
        }
    }

    /// Returns the requested cancellation, if any.
    pub fn cancelled(&self) -> Option<Cancelled> {
        self.inbox_entries(0).unwrap_or_default().into_iter().find_map(|inbox_entry| match inbox_entry.instruction {
            Instruction::Cancel { reason } => Some(Cancelled { by: inbox_entry.by, reason }),
            Instruction::Message { .. } | Instruction::OverBudget { .. } | Instruction::Answer { .. } => None,
        })
    }

    /// Adds a record after the last one. `create` creates it exclusively under the path that it gets, once for each
    /// number that is tried.
    fn append(&self, create: impl Fn(&Path) -> Result<(), FileError>) -> Result<PostResult, FileError> {
        let mut next = self.count_records()?;
        let mut taken = next.checked_sub(1);
        loop {
            if let Some(number) = taken {
                match files::read_existing_json(&self.record_path(number))? {
                    Record::Closed => return Ok(PostResult::Closed),
                    Record::Entry(_) => next = number + 1,
                }
            }
            match create(&self.record_path(next)) {
                Err(FileError::Exists { .. }) => taken = Some(next),
                created => return created.map(|()| PostResult::Accepted),
            }
        }
    }

    /// Announces the records to readers on other hosts. Of several writers at the same time, the last one announces the
    /// records of all. Readers list the folder too, so an error only delays them.
    fn announce(&self) {
        let mut announced = 0;
        while let Ok(count) = self.count_records()
            && count > announced
        {
            announced = count;
            if let Err(error) = files::replace(&self.notify(), count.to_string().as_bytes(), false) {
                tracing::warn!(%error, "cannot announce a message: supervisors on other hosts may read it late");
                return;
            }
        }
    }

    /// Returns the announced number of records.
    fn announced(&self) -> usize {
        let text = fs::read_to_string(self.notify()).unwrap_or_default();
        text.parse().unwrap_or(0)
    }

    /// Returns the number of records, as the folder lists them.
    fn count_records(&self) -> Result<usize, FileError> {
        let inbox = self.inbox();
        let entries = match fs::read_dir(&inbox) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(source) => return Err(FileError::read(&inbox, source)),
        };
        let mut count = 0;
        for entry in entries {
            let name = entry.map_err(|source| FileError::read(&inbox, source))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<usize>().ok());
            count = count.max(number.map_or(0, |number| number.saturating_add(1)));
        }
        Ok(count)
    }
}
#[cfg(test)]
mod tests;
