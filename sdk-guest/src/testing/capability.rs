//! `secret`, `files` and `event` off wasm: what the fake host was given, and what it was told.

use super::{FAKES, Host};
use crate::event::EventType;
use crate::secret::SecretKey;

impl Host {
    /// A Secret's key that the plugin may read, by handle and by its bytes.
    pub fn set_secret(&self, secret: SecretKey, bytes: impl Into<Vec<u8>>) {
        FAKES.with_borrow_mut(|fakes| fakes.secrets.insert(secret, bytes.into()));
    }

    /// The secret that a handle of this host stands for.
    #[must_use]
    pub fn opened(&self, handle: crate::SecretHandle) -> Option<SecretKey> {
        FAKES.with_borrow(|fakes| {
            let place = usize::try_from(handle.0.checked_sub(super::OPENED_FROM)?).ok()?;
            fakes.opened.get(place).cloned()
        })
    }

    /// A file below the granted directory.
    pub fn set_file(&self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        FAKES.with_borrow_mut(|fakes| fakes.files.insert(path.into(), bytes.into()));
    }

    /// All events so far: type, reason, message.
    #[must_use]
    pub fn events(&self) -> Vec<(EventType, String, String)> {
        FAKES.with_borrow(|fakes| fakes.events.clone())
    }
}

pub(crate) mod vault {
    //! `secret` off wasm.

    use super::super::{FAKES, OPENED_FROM};
    use crate::context::SecretHandle;
    use crate::secret::{Error, SecretKey};

    pub(crate) fn open(secret: &SecretKey) -> Result<SecretHandle, Error> {
        read(secret)?;
        FAKES.with_borrow_mut(|fakes| {
            let place = u64::try_from(fakes.opened.len()).unwrap_or(u64::MAX);
            fakes.opened.push(secret.clone());
            Ok(SecretHandle(OPENED_FROM.saturating_add(place)))
        })
    }

    pub(crate) fn read(secret: &SecretKey) -> Result<Vec<u8>, Error> {
        FAKES.with_borrow(|fakes| {
            let found = fakes.secrets.get(secret).cloned();
            found.ok_or_else(|| Error::NotFound(format!("there is no {secret}")))
        })
    }
}

pub(crate) mod disk {
    //! `files` off wasm.

    use std::collections::BTreeMap;

    use super::super::FAKES;
    use crate::files::{Entry, Error};

    pub(crate) fn read(path: &str) -> Result<Vec<u8>, Error> {
        let is_plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_plain {
            return Err(Error::Invalid(format!("{path:?} is not a relative path")));
        }
        FAKES.with_borrow(|fakes| {
            let found = fakes.files.get(path).cloned();
            found.ok_or_else(|| Error::NotFound(format!("there is no {path:?}")))
        })
    }

    pub(crate) fn list_directory(path: &str) -> Result<Vec<Entry>, Error> {
        let below = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let mut entries = BTreeMap::new();
        FAKES.with_borrow(|fakes| {
            for (file, bytes) in &fakes.files {
                let Some(rest) = file.strip_prefix(&below) else {
                    continue;
                };
                let (name, is_directory) = match rest.split_once('/') {
                    Some((directory, _)) => (directory, true),
                    None => (rest, false),
                };
                let size = if is_directory { 0 } else { bytes.len() };
                let entry = Entry {
                    name: name.to_owned(),
                    is_directory,
                    size_bytes: u64::try_from(size).unwrap_or(u64::MAX),
                };
                entries.insert(name.to_owned(), entry);
            }
        });
        if entries.is_empty() && !path.is_empty() {
            return Err(Error::NotFound(format!("there is no {path:?}")));
        }
        Ok(entries.into_values().collect())
    }
}

pub(crate) mod board {
    //! `event` off wasm.

    use super::super::FAKES;
    use crate::event::{Error, EventType};

    pub(crate) fn emit(event_type: EventType, reason: &str, message: &str) -> Result<(), Error> {
        FAKES.with_borrow_mut(|fakes| {
            if fakes.events.len() >= 8 {
                return Err(Error::Limit("8 events are the most".to_owned()));
            }
            fakes
                .events
                .push((event_type, reason.to_owned(), message.to_owned()));
            Ok(())
        })
    }
}
