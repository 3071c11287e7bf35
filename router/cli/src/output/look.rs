// SPDX-License-Identifier: Apache-2.0
//! What the terminal can show.

use std::io::IsTerminal;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE colours pipes as well.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The meaning of a text, shown by colour next to its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Deserves a look.
    Notice,
    /// Wrong.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Strong,
}

/// What the output can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether to write ANSI colours.
    pub color: bool,
    /// Whether to write anything but ASCII.
    pub unicode: bool,
    /// Columns of the terminal; `None` for a pipe, where lines are never broken.
    pub width: Option<usize>,
}

impl Look {
    /// No colour, ASCII, no width: what a pipe in the C locale gets.
    pub const PLAIN: Look = Look {
        color: false,
        unicode: false,
        width: None,
    };

    /// What standard output (or standard error) can show, by the environment.
    pub fn detect(choice: ColorChoice, for_stderr: bool) -> Look {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let terminal = if for_stderr {
            std::io::stderr().is_terminal()
        } else {
            std::io::stdout().is_terminal()
        };
        let forced = set("CLICOLOR_FORCE") && std::env::var_os("CLICOLOR_FORCE").unwrap() != "0";
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => !set("NO_COLOR") && (forced || (terminal && !dumb)),
        };
        // POSIX: the first of these that is set and not empty decides.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find(|name| set(name));
        let unicode = locale
            .and_then(|name| std::env::var(name).ok())
            .is_some_and(|value| {
                let value = value.to_ascii_lowercase();
                value.contains("utf-8") || value.contains("utf8")
            });
        let width = terminal.then(columns).flatten();
        Look {
            color,
            unicode,
            width,
        }
    }

    /// The text with the colour of its meaning.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Notice => "33",
            Tone::Bad => "1;31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        if self.color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// The symbol of a meaning, always followed by words.
    pub fn symbol(&self, tone: Tone) -> &'static str {
        match (tone, self.unicode) {
            (Tone::Good, true) => "✔",
            (Tone::Good, false) => "+",
            (Tone::Notice, true) => "▲",
            (Tone::Notice, false) => "!",
            (Tone::Bad, true) => "✖",
            (Tone::Bad, false) => "x",
            (Tone::Dim, true) => "·",
            (Tone::Dim | Tone::Plain | Tone::Strong, _) => "-",
        }
    }
}

/// The width of the terminal: COLUMNS where somebody set it, else what the terminal says.
fn columns() -> Option<usize> {
    if let Some(columns) = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()) {
        return Some(columns);
    }
    let mut size = nix::libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a winsize and `size` is one; the descriptor is only asked.
    let result = unsafe { nix::libc::ioctl(1, nix::libc::TIOCGWINSZ, &mut size) };
    (result == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}
