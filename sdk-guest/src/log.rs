//! Structured logging into the host's log: `log::info!("made an instance"; "zone" => zone)`. Nothing to grant. The host adds plugin,
//! digest, object and call. Off wasm, messages go to [`testing::Host`](crate::testing::Host).

pub use crate::{__debug as debug, __error as error, __info as info, __warn as warn};

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Someone must act.
    Error,
    /// Someone may want to act.
    Warn,
    /// What happened.
    Info,
    /// For the author.
    Debug,
}

/// Whether messages of this level are kept: ask before building a costly one.
#[must_use]
pub fn enabled(level: Level) -> bool {
    sink::enabled(level)
}

/// Logs a message. At most 64 KiB per call together; what is over is dropped and counted.
pub fn emit(level: Level, message: &str, fields: &[(String, String)]) {
    sink::emit(level, message, fields);
}

/// The one that the others are made of.
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:expr, $format:literal $(, $argument:expr)* $(; $($key:literal => $value:expr),+ $(,)?)?) => {
        if $crate::log::enabled($level) {
            $crate::log::emit(
                $level,
                &::std::format!($format $(, $argument)*),
                &[$($((::std::string::String::from($key), ::std::format!("{}", $value))),+)?],
            );
        }
    };
}

/// Logs at level error.
#[doc(hidden)]
#[macro_export]
macro_rules! __error { ($($message:tt)+) => { $crate::__log!($crate::log::Level::Error, $($message)+) }; }

/// Logs at level warn.
#[doc(hidden)]
#[macro_export]
macro_rules! __warn { ($($message:tt)+) => { $crate::__log!($crate::log::Level::Warn, $($message)+) }; }

/// Logs at level info.
#[doc(hidden)]
#[macro_export]
macro_rules! __info { ($($message:tt)+) => { $crate::__log!($crate::log::Level::Info, $($message)+) }; }

/// Logs at level debug.
#[doc(hidden)]
#[macro_export]
macro_rules! __debug { ($($message:tt)+) => { $crate::__log!($crate::log::Level::Debug, $($message)+) }; }

#[cfg(target_arch = "wasm32")]
mod sink {
    //! The host.

    use super::Level;
    use crate::bindings::base::capstan::plugin::log as wit;

    fn level(level: Level) -> wit::Level {
        match level {
            Level::Error => wit::Level::Error,
            Level::Warn => wit::Level::Warn,
            Level::Info => wit::Level::Info,
            Level::Debug => wit::Level::Debug,
        }
    }

    pub(super) fn enabled(of: Level) -> bool {
        wit::enabled(level(of))
    }

    pub(super) fn emit(of: Level, message: &str, fields: &[(String, String)]) {
        wit::emit(level(of), message, fields);
    }
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::sink;
