//! Waits until a file was written to or cut: inotify on Linux, kqueue on macOS. Does not read the file.

#[cfg(target_os = "linux")]
pub(super) use linux::Growth;
#[cfg(not(target_os = "linux"))]
pub(super) use others::Growth;

/// Read on the runtime's own thread: `notify` has a thread for each file, and waking two threads for every line that a
/// CLI prints costs more than all that is done with the line.
#[cfg(target_os = "linux")]
mod linux {
    use std::future::poll_fn;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::inotify;
    use rustix::io::Errno;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// What was written since the last read is one event of 16 bytes: the kernel joins equal ones. A few, to be sure.
    const EVENTS: usize = 256;

    pub struct Growth {
        inotify: AsyncFd<OwnedFd>,
    }

    impl Growth {
        /// Must be called within a runtime. An error: the user's instances or watches are used up.
        pub fn watch(path: &Path) -> io::Result<Self> {
            let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            inotify::add_watch(&inotify, path, inotify::WatchFlags::MODIFY)?;
            // SAFETY: what an `OwnedFd` says is its descriptor is open and stays the same until it is dropped, which the
            // `AsyncFd` does that owns it.
            Ok(Self { inotify: unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE)? } })
        }

        /// Returns at once if it was written to since the last time. Dropping the future misses nothing.
        pub async fn next(&self) -> io::Result<()> {
            loop {
                let mut ready = poll_fn(|context| self.inotify.poll_read_ready(context)).await?;
                let mut events = [0_u8; EVENTS];
                match rustix::io::read(self.inotify.get_ref(), &mut events) {
                    Ok(count) => {
                        // Less than it holds: there are no more, and the next one is told anew.
                        if count < EVENTS / 2 {
                            ready.clear_ready();
                        }
                        return Ok(());
                    }
                    Err(Errno::AGAIN) => ready.clear_ready(),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod others {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
    use tokio::sync::Notify;

    pub struct Growth {
        wake: Arc<Notify>,
        /// Held only for its life.
        _watcher: RecommendedWatcher,
    }

    impl Growth {
        pub fn watch(path: &Path) -> io::Result<Self> {
            let wake = Arc::new(Notify::new());
            let news = Arc::clone(&wake);
            let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Opening and reading, by ourselves too, is not news.
                if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                    news.notify_one();
                }
            });
            let mut watcher = watcher.map_err(io::Error::other)?;
            watcher.watch(path, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
            Ok(Self { wake, _watcher: watcher })
        }

        /// The permit of an event that came while nobody waited is kept, so none is missed.
        pub async fn next(&self) -> io::Result<()> {
            self.wake.notified().await;
            Ok(())
        }
    }
}
