//! The only writer to stdout and stderr. Whoever closes the pipe has read enough.

use serde_json::Value;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// Something could not be written: told at the end, since a node does not stop for it.
static LOST: Mutex<Option<std::io::Error>> = Mutex::new(None);

fn write(mut to: impl Write, text: &str) {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        // A closed pipe is the reader's choice; there is nobody to tell.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            *LOST.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
        Ok(()) | Err(_) => {}
    }
}

/// Why some of the output did not arrive, if it did not.
pub(crate) fn lost() -> Option<std::io::Error> {
    LOST.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Text as it is.
pub(crate) fn text(text: &str) {
    write(std::io::stdout().lock(), text);
}

/// A line.
pub(crate) fn line(line: &str) {
    write(std::io::stdout().lock(), &format!("{line}\n"));
}

/// One JSON value on a line.
pub(crate) fn json(value: &Value) {
    line(&value.to_string());
}

/// A line on stderr.
pub(crate) fn error(line: &str) {
    write(std::io::stderr().lock(), &format!("{line}\n"));
}

/// Whether somebody looks.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Something to look at while it lasts, on stderr, where somebody looks; each takes the place of the one before.
pub(crate) fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        write(std::io::stderr().lock(), &format!("\r\x1b[2K{what}"));
    }
}

/// What other people wrote, safe to show on a terminal: control characters could move the cursor or worse.
pub(crate) fn safe(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Rows under their titles, columns aligned.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells
            .chain([titles[column].len()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
            .collect();
        line(padded.join("  ").trim_end());
    };
    print(&mut titles.iter().copied());
    for row in rows {
        print(&mut row.iter().map(String::as_str));
    }
}
