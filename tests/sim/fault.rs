//! What goes wrong with requests and plugin calls, by luck: how often in a world, and what in each case.

use std::time::Duration;

use capstan_controllers::kube_api::ApiError;

use crate::random::Random;

/// How often what goes wrong, in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// A request is refused before it has an effect: 409, 429, 5xx.
    pub refused: u32,
    /// A request has its effect and the answer is lost.
    pub lost: u32,
    /// A request hangs until the client gives up; what of it was done is open.
    pub hung: u32,
    /// A watch ends after an event.
    pub watch_ends: u32,
    /// The server has forgotten where a watch was.
    pub watch_expires: u32,
    /// An event is held back for seconds.
    pub event_late: u32,
    /// A plugin call goes wrong.
    pub plugin: u32,
    /// An eviction is refused.
    pub eviction: u32,
}

impl Rates {
    /// Rates of one world: most have a few faults, some none, some are bad.
    #[must_use]
    pub fn draw(random: &mut Random) -> Self {
        let level = match random.below(10) {
            0 => return Self::default(),
            1..=6 => 1,
            7 | 8 => 4,
            _ => 12,
        };
        let mut rate = |most: u64| {
            // Each kind of fault is left out of some worlds, so that what hides behind it is seen.
            if random.happens(250) {
                return 0;
            }
            u32::try_from(random.below(most * level)).unwrap_or_default()
        };
        Self {
            refused: rate(20),
            lost: rate(12),
            hung: rate(4),
            watch_ends: rate(15),
            watch_expires: rate(50),
            event_late: rate(40),
            plugin: rate(40),
            eviction: rate(60),
        }
    }
}

/// What becomes of one request.
#[derive(Clone, Debug)]
pub struct Fate {
    /// On the way to the server.
    pub before: Duration,
    /// The server says no.
    pub refusal: Option<ApiError>,
    /// On the way back.
    pub after: Duration,
    /// No answer arrives, although the request had its effect.
    pub is_lost: bool,
}

/// How long the real client waits for an answer of the management cluster, and of a workload cluster.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);
/// See above.
pub const WORKLOAD_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

impl Fate {
    /// Draws the fate of a request that changes something or not, and that is waited for so long.
    #[must_use]
    pub fn draw(random: &mut Random, rates: Rates, is_write: bool, timeout: Duration) -> Self {
        let mut fate = Self {
            before: random.millis(1, 12),
            refusal: None,
            after: random.millis(1, 8),
            is_lost: false,
        };
        if random.happens(rates.refused) {
            fate.refusal = Some(refusal(random, is_write));
        } else if random.happens(rates.lost) {
            fate.is_lost = true;
            fate.after = random.millis(10, 5_000);
        } else if random.happens(rates.hung) {
            if random.happens(500) {
                fate.before = timeout;
                let words = format!("no answer within {} s", timeout.as_secs());
                fate.refusal = Some(ApiError::Unavailable(words));
            } else {
                fate.is_lost = true;
                fate.after = timeout;
            }
        }
        fate
    }
}

fn refusal(random: &mut Random, is_write: bool) -> ApiError {
    match random.below(if is_write { 4 } else { 3 }) {
        0 => ApiError::TooManyRequests {
            message: "too many requests, please try again later".to_owned(),
            retry_after_s: random.happens(500).then(|| random.between(1, 3)),
        },
        1 => ApiError::Unavailable("etcdserver: request timed out".to_owned()),
        2 => ApiError::Unavailable("connection refused".to_owned()),
        // A server gives up after some tries of its own when an object changes all the time.
        _ => ApiError::Conflict("the object has been modified; please try again".to_owned()),
    }
}
