//! A user that the user data wants on the machine.

use serde_json::Value;

use super::UserDataError;

/// A user to make, or to complete.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Full name.
    pub gecos: String,
    /// Home directory; the system's choice when empty.
    pub home: String,
    /// Login shell; the system's choice when empty.
    pub shell: String,
    /// Primary group; one of the user's name when empty.
    pub primary_group: String,
    /// Further groups.
    pub groups: Vec<String>,
    /// Hash of the password.
    pub password_hash: String,
    /// Whether the password is locked.
    pub locks_password: bool,
    /// Rules for sudo.
    pub sudo: Vec<String>,
    /// Keys that may log in.
    pub ssh_keys: Vec<String>,
    /// Whether it is made as a system user.
    pub system: bool,
    /// Whether it expires at once.
    pub inactive: bool,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One text, or several: a list, or words between commas.
fn texts(value: Option<&Value>, separator: Option<char>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => match separator {
            Some(separator) => text
                .split(separator)
                .map(|word| word.trim().to_owned())
                .filter(|word| !word.is_empty())
                .collect(),
            None => vec![text.clone()],
        },
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

impl User {
    /// The users of the `users` part. `default` is the image's own user: there is none to make.
    pub(super) fn read(part: &Value) -> Result<Vec<Self>, UserDataError> {
        let wrong =
            |at: usize, why: &str| UserDataError::Part(format!("users[{at}]"), why.to_owned());
        let mut users = Vec::new();
        for (at, user) in part.as_array().into_iter().flatten().enumerate() {
            let user = match user {
                Value::String(name) => Self {
                    name: name.clone(),
                    locks_password: true,
                    ..Self::default()
                },
                Value::Object(_) => Self::from_object(user),
                _ => return Err(wrong(at, "is neither a name nor a mapping")),
            };
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if user.name.is_empty() || !user.name.chars().all(is_name) || user.name.starts_with('-')
            {
                return Err(wrong(at, "name is missing or not the name of a user"));
            }
            if user.name != "default" {
                users.push(user);
            }
        }
        Ok(users)
    }

    fn from_object(user: &Value) -> Self {
        let text = |key: &str| match user.get(key) {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        let is = |keys: [&str; 2]| {
            keys.into_iter()
                .filter_map(|key| user.get(key)?.as_bool())
                .next_back()
        };
        Self {
            name: text("name"),
            gecos: text("gecos"),
            home: text("homedir"),
            shell: text("shell"),
            primary_group: text("primary_group"),
            groups: texts(user.get("groups"), Some(',')),
            password_hash: text("passwd"),
            locks_password: is(["lock-passwd", "lock_passwd"]).unwrap_or(true),
            sudo: texts(user.get("sudo"), None),
            ssh_keys: texts(
                user.get("ssh_authorized_keys")
                    .or_else(|| user.get("ssh-authorized-keys")),
                None,
            ),
            system: is(["system", "system"]).unwrap_or(false),
            inactive: match user.get("inactive") {
                Some(Value::Bool(inactive)) => *inactive,
                Some(Value::String(text)) => text == "true",
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_users_in_both_forms() {
        let part = serde_json::json!([
            "default",
            "plain",
            {"name": "ops", "groups": "sudo, adm", "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": false,
             "passwd": "$6$salt$hash", "ssh_authorized_keys": ["ssh-ed25519 AAAA a"], "inactive": "true", "shell": "/bin/sh"},
        ]);
        let users = User::read(&part).unwrap();
        let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["plain", "ops"]);
        let ops = users.last().unwrap();
        assert_eq!(ops.groups, ["sudo", "adm"]);
        assert_eq!(ops.sudo, ["ALL=(ALL) NOPASSWD:ALL"]);
        assert_eq!(ops.ssh_keys.len(), 1);
        assert!(ops.inactive && !ops.locks_password);
        assert!(!format!("{ops:?}").contains("hash"));
    }

    #[test]
    fn a_name_is_a_name() {
        for part in [
            serde_json::json!([{"gecos": "x"}]),
            serde_json::json!([{"name": "a b"}]),
            serde_json::json!([3]),
        ] {
            let error = User::read(&part).unwrap_err().to_string();
            assert!(error.contains("users[0]"), "{error}");
        }
    }
}
