//! Tells when something changes in a directory, without looking at it again and again.

use std::io;
use std::path::Path;

#[cfg(target_os = "linux")]
pub(crate) use linux::Changes;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::Changes;

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;

    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use tokio::io::unix::AsyncFd;

    use super::{Path, io};

    /// What the kernel tells of one directory.
    pub(crate) struct Changes {
        inotify: AsyncFd<OwnedFd>,
    }

    impl Changes {
        /// Changes in this directory from now on.
        pub(crate) fn of(directory: &Path) -> io::Result<Self> {
            let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            add_watch(
                &inotify,
                directory,
                WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO,
            )?;
            // SAFETY: the descriptor is ours alone, and stays open and the same until the `AsyncFd` drops it.
            let inotify = unsafe { AsyncFd::register(inotify) }.map_err(io::Error::from)?;
            Ok(Self { inotify })
        }

        /// Returns when something has changed since the last call.
        pub(crate) async fn next(&mut self) -> io::Result<()> {
            let mut told = [0; 4096];
            loop {
                let mut ready = self.inotify.readable().await?;
                let mut any = false;
                loop {
                    match rustix::io::read(self.inotify.get_ref(), &mut told) {
                        Ok(_) => any = true,
                        Err(rustix::io::Errno::AGAIN) => break,
                        Err(error) => return Err(error.into()),
                    }
                }
                ready.clear_ready();
                if any {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::time::Duration;

    use super::{Path, io};

    /// How late a follower may be where the system tells nothing.
    const LOOK_EVERY: Duration = Duration::from_millis(100);

    /// A look now and then, on systems without inotify. Only `logs -f` pays for it, and only while it runs.
    pub(crate) struct Changes;

    impl Changes {
        /// Changes in this directory from now on.
        #[expect(clippy::unnecessary_wraps, reason = "the Linux twin can fail")]
        pub(crate) fn of(_directory: &Path) -> io::Result<Self> {
            Ok(Self)
        }

        /// Returns when something may have changed.
        #[expect(clippy::unnecessary_wraps, reason = "the Linux twin can fail")]
        pub(crate) async fn next(&mut self) -> io::Result<()> {
            tokio::time::sleep(LOOK_EVERY).await;
            Ok(())
        }
    }
}
