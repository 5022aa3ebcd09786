//! A screen of its own in a terminal, as long as this exists.

use std::io::Write as _;

use super::print;

/// Restores what was there before.
pub(super) struct Screen;

impl Screen {
    /// Takes the terminal on standard output.
    pub(super) fn open() -> anyhow::Result<Self> {
        print("\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }

    /// Shows as many of these lines as there is room for, in place of those before.
    #[allow(clippy::unused_self, reason = "only whoever has the screen may draw on it")]
    pub(super) fn draw(&self, lines: &[String]) -> anyhow::Result<()> {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let of = |cells: Option<u16>| cells.filter(|cells| *cells > 0).map(usize::from);
        let rows = of(size.map(|size| size.ws_row)).unwrap_or(24);
        let columns = of(size.map(|size| size.ws_col)).unwrap_or(80);
        // Each line clears what was behind it on the screen before, and none is wrapped.
        let text = lines.iter().take(rows - 1).fold(String::new(), |text, line| {
            let end = line.char_indices().nth(columns).map_or(line.len(), |(at, _)| at);
            text + &line[..end] + "\x1b[K\r\n"
        });
        print(&format!("\x1b[H{text}\x1b[J"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to tell if this fails.
        let _ = write!(std::io::stdout(), "\x1b[?25h\x1b[?1049l");
    }
}
