//! The terminal while a picture is in it: its own screen, keys one by one. All of it is undone when this is dropped.

use std::io::{self, Write as _};

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{cursor, event, execute, queue, style, terminal};
use tokio::sync::mpsc;

use crate::screen::{Line, paint};

/// Keys that wait to be looked at.
const READ_AHEAD: usize = 64;

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Pause,
    Up,
    Down,
    /// Nothing, or another size of the terminal.
    Other,
}

pub(super) struct Terminal {
    keys: mpsc::Receiver<Key>,
    /// Keys that came while something else was done.
    later: Vec<Key>,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let (sender, keys) = mpsc::channel(READ_AHEAD);
        let this = Self { keys, later: Vec::new() };
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        // It ends with the process: reading a terminal cannot be given up.
        std::thread::spawn(move || {
            while let Ok(event) = event::read() {
                if sender.blocking_send(key(&event)).is_err() {
                    return;
                }
            }
        });
        Ok(this)
    }

    /// The next key; a terminal that is gone wants to quit.
    pub(super) async fn key(&mut self) -> Key {
        if self.later.is_empty() { self.keys.recv().await.unwrap_or(Key::Quit) } else { self.later.remove(0) }
    }

    /// Resolves when the user wants to quit; keeps other keys.
    pub(super) async fn quits(&mut self) {
        loop {
            match self.keys.recv().await {
                None | Some(Key::Quit) => return,
                Some(key) if self.later.len() < READ_AHEAD => self.later.push(key),
                Some(_) => {}
            }
        }
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        let (width, height) = terminal::size().unwrap_or((80, 24));
        if width == 0 || height == 0 { (80, 24) } else { (width.into(), height.into()) }
    }

    pub(super) fn draw(&mut self, lines: &[Line], (width, height): (usize, usize), colours: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        queue!(out, BeginSynchronizedUpdate)?;
        for (row, line) in lines.iter().take(height).enumerate() {
            let row = u16::try_from(row).unwrap_or(u16::MAX);
            let text = paint(line, Some(width), colours);
            queue!(out, cursor::MoveTo(0, row), style::Print(text), Clear(ClearType::UntilNewLine))?;
        }
        if lines.len() < height {
            let row = u16::try_from(lines.len()).unwrap_or(u16::MAX);
            queue!(out, cursor::MoveTo(0, row), Clear(ClearType::FromCursorDown))?;
        }
        queue!(out, EndSynchronizedUpdate)?;
        out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = execute!(io::stdout(), cursor::Show, LeaveAlternateScreen);
        let _gone = terminal::disable_raw_mode();
    }
}

fn key(event: &Event) -> Key {
    let Event::Key(key) = event else { return Key::Other };
    if key.kind == KeyEventKind::Release {
        return Key::Other;
    }
    match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Char(' ' | 'p') => Key::Pause,
        KeyCode::Char('k') | KeyCode::Up => Key::Up,
        KeyCode::Char('j') | KeyCode::Down => Key::Down,
        _ => Key::Other,
    }
}
