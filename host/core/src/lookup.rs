//! What a read found. A failed read is `Unknown`, never `Missing`: nothing is deleted because something could not be seen.

/// The result of looking for one thing.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Lookup<T> {
    /// It exists.
    Found(T),
    /// It certainly does not exist.
    #[default]
    Missing,
    /// It could not be seen; why.
    Unknown(String),
}

impl<T> Lookup<T> {
    /// The thing, when it was found.
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found(value) => Some(value),
            Self::Missing | Self::Unknown(_) => None,
        }
    }

    /// Whether it certainly does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    /// The same with another type inside.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Found(value) => Lookup::Found(f(value)),
            Self::Missing => Lookup::Missing,
            Self::Unknown(why) => Lookup::Unknown(why),
        }
    }
}
