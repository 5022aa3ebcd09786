//! Files that are read: the configuration, kubeconfigs and what they name, manifests.
//!
//! Whoever may write them can make them anything: endless, a pipe that nobody writes to, a file of a
//! server that is gone. So every file is bounded, only files are opened, and while a daemon runs none
//! is touched on a thread that serves or that waits for signals.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

/// Reads a file of at most `most` bytes. A link counts as what it leads to.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Not blocking, for a pipe would wait for somebody who writes.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let kind = match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => return bounded(file, most),
        FileType::Directory => "a folder",
        FileType::Fifo => "a pipe",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, not a file")))
}

/// The same, of a text.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n');
        let text = format!("it is not UTF-8 text (line {})", line.count());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// Reads standard input, at most so many bytes.
pub(crate) fn read_stdin(most: u64) -> io::Result<Vec<u8>> {
    bounded(io::stdin().lock(), most)
}

fn bounded(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let limit = if most >> 20 > 0 { (most >> 20, "MiB") } else { (most >> 10, "KiB") };
        let text = format!("it is larger than {} {}", limit.0, limit.1);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Does something that may hang on another thread. Who ends a runtime must not wait for these threads
/// (`Runtime::shutdown_background`).
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Does something that may hang, while this thread does nothing but wait. The kernel hands a signal to the
/// first thread of a process; where that one hangs in a file system, no other is told of it.
pub(crate) fn waited<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let ended = std::thread::scope(|scope| scope.spawn(work).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_only_so_much_of_them() {
        let folder = std::env::temp_dir().join(format!("proxier-input-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("file");
        std::fs::write(&file, [b'x'; 2048]).unwrap();
        let link = folder.join("link");
        std::os::unix::fs::symlink("file", &link).unwrap();
        let pipe = folder.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let socket = folder.join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(read(&file, 2048).unwrap().len(), 2048);
        assert_eq!(read_text(&link, 1 << 20).unwrap().len(), 2048);
        for (path, why) in [
            (&*file, "it is larger than 1 KiB"),
            (&pipe, "it is a pipe, not a file"),
            (&folder, "it is a folder, not a file"),
            (Path::new("/dev/zero"), "it is a device, not a file"),
            (&socket, ""),
            (&folder.join("nothing"), "No such file"),
        ] {
            let error = read(path, 1024).unwrap_err().to_string();
            assert!(error.starts_with(why), "{}: {error}", path.display());
        }
        std::fs::write(&file, b"a\nb\xff").unwrap();
        let error = read_text(&file, 1024).unwrap_err().to_string();
        assert_eq!(error, "it is not UTF-8 text (line 2)");
        // Of the kernel's own files the size is not known before they are read.
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
        let endless = std::io::repeat(b'x');
        assert_eq!(bounded(endless, 3 << 20).unwrap_err().to_string(), "it is larger than 3 MiB");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_hangs_or_panics_aside_holds_nobody_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_never, wait) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            assert_eq!(aside(|| 7).await.unwrap(), 7);
            let hanging = aside(move || wait.recv().is_ok());
            tokio::select! {
                biased;
                _ = hanging => panic!("nobody has sent anything"),
                () = tokio::task::yield_now() => {}
            }
            assert!(aside(|| assert_eq!(std::hint::black_box(1), 2)).await.is_err());
        });
        // As the daemon ends. This would wait for ever for the one that hangs, which nobody wakes.
        runtime.shutdown_background();
    }
}
