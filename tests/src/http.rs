//! One HTTP request, as short as it can be.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

/// Where the daemon answers for its metrics and pages.
pub const METRICS: &str = "127.0.0.1:10249";

/// What a server says to `GET PATH`: the head and the body.
///
/// # Errors
/// Nobody is there, or what it says is not UTF-8.
pub fn get(address: impl ToSocketAddrs, path: &str) -> io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    // HTTP/1.0: the answer ends with the connection, in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.to_owned(), body.to_owned()))
}
