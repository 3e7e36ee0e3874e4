//! Waits until a file was written to or truncated: inotify on Linux, kqueue on macOS. Does not read the file.

#[cfg(target_os = "linux")]
pub(super) use linux::GrowthWatch;
#[cfg(not(target_os = "linux"))]
pub(super) use others::GrowthWatch;

/// Inotify is read on the runtime's own thread. The crate `notify` has a thread for each file, and waking two threads
/// for every line that a CLI prints costs more than handling the line.
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

    /// Size of the buffer in bytes. All writes since the last read are one event of 16 bytes, since the kernel joins
    /// equal events.
    const BUFFER: usize = 256;

    pub struct GrowthWatch {
        inotify: AsyncFd<OwnedFd>,
    }

    impl GrowthWatch {
        /// Watches a file. Must be called within a runtime. Fails if the user's instances or watches are exhausted.
        pub fn new(path: &Path) -> io::Result<Self> {
            let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            inotify::add_watch(&inotify, path, inotify::WatchFlags::MODIFY)?;
            // SAFETY: the descriptor of an `OwnedFd` stays open and the same until it is dropped, and the `AsyncFd`
            // owns it.
            Ok(Self { inotify: unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE)? } })
        }

        /// Waits for the next write. Returns at once if there was one since the last call. Dropping the future loses no
        /// event.
        pub async fn next(&self) -> io::Result<()> {
            loop {
                let mut ready = poll_fn(|context| self.inotify.poll_read_ready(context)).await?;
                let mut events = [0_u8; BUFFER];
                match rustix::io::read(self.inotify.get_ref(), &mut events) {
                    Ok(count) => {
                        // There are no more events in the queue.
                        if count < BUFFER / 2 {
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

    pub struct GrowthWatch {
        wake: Arc<Notify>,
        /// Keeps the watch alive.
        _watcher: RecommendedWatcher,
    }

    impl GrowthWatch {
        pub fn new(path: &Path) -> io::Result<Self> {
            let wake = Arc::new(Notify::new());
            let on_event = Arc::clone(&wake);
            let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Opening and reading do not change the file.
                if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                    on_event.notify_one();
                }
            });
            let mut watcher = watcher.map_err(io::Error::other)?;
            watcher.watch(path, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
            Ok(Self { wake, _watcher: watcher })
        }

        /// Waits for the next event. An event that arrives while nothing waits is kept.
        pub async fn next(&self) -> io::Result<()> {
            self.wake.notified().await;
            Ok(())
        }
    }
}
