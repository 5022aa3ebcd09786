//! Connections without end, for whoever they hurt.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Connects as fast as it can, with so many threads, and holds up to `held` connections of each thread
/// without a word, the newest ones. Prints a line once the first connection is made, and at the end of the
/// standard input how many were made in how many milliseconds.
pub fn flood(to: SocketAddr, threads: usize, held: usize) -> io::Result<()> {
    let (made, end, begin) = (AtomicU64::new(0), AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut open = VecDeque::new();
                while !end.load(Ordering::Relaxed) {
                    // Whom the kernel does not answer asks again soon.
                    let Ok(stream) = TcpStream::connect_timeout(&to, Duration::from_millis(100))
                    else {
                        continue;
                    };
                    made.fetch_add(1, Ordering::Relaxed);
                    open.push_back(stream);
                    if open.len() > held {
                        open.pop_front();
                    }
                }
            });
        }
        while made.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        println!("flooding");
        io::stdout().flush()?;
        io::stdin().lock().lines().for_each(drop);
        end.store(true, Ordering::Relaxed);
        println!("{} {}", made.load(Ordering::Relaxed), begin.elapsed().as_millis());
        Ok(())
    })
}
