//! Makes the users of user data with the image's own programs.

use crate::cloud::userdata::User;

/// Programs to run for a user, in order; each with what it reads. `exists` tells whether it is there already.
pub(super) fn commands(user: &User, exists: bool) -> Vec<(Vec<String>, String)> {
    let words =
        |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
    let mut out = Vec::new();
    let groups = user.groups.iter().chain(Some(&user.primary_group));
    for group in groups.filter(|group| !group.is_empty()) {
        out.push((words(&["groupadd", "--force", group]), String::new()));
    }
    let mut argv = words(if exists { &["usermod"] } else { &["useradd"] });
    let mut option = |name: &str, value: &str| {
        if !value.is_empty() {
            argv.extend([name.to_owned(), value.to_owned()]);
        }
    };
    option("--comment", &user.gecos);
    option("--home-dir", if exists { "" } else { &user.home });
    option("--shell", &user.shell);
    option("--gid", &user.primary_group);
    option("--groups", &user.groups.join(","));
    if user.inactive {
        option("--expiredate", "1");
    }
    let has_options = argv.len() > 1;
    if !exists {
        argv.push(
            if user.system {
                "--system"
            } else {
                "--create-home"
            }
            .to_owned(),
        );
    } else if !user.groups.is_empty() {
        argv.push("--append".to_owned());
    }
    argv.push(user.name.clone());
    if has_options || !exists {
        out.push((argv, String::new()));
    }
    if !user.password_hash.is_empty() {
        // By standard input: arguments are for everybody to see.
        let line = format!("{}:{}\n", user.name, user.password_hash);
        out.push((words(&["chpasswd", "--encrypted"]), line));
    }
    if user.locks_password {
        out.push((
            words(&["passwd", "--quiet", "--lock", &user.name]),
            String::new(),
        ));
    }
    out
}

/// The content of the file with the user's rules for sudo.
pub(super) fn sudo_rules(user: &User) -> String {
    user.sudo
        .iter()
        .map(|rule| format!("{} {rule}\n", user.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_an_argument() {
        let user = User {
            name: "ops".into(),
            password_hash: "$6$salt$hash".into(),
            groups: vec!["adm".into()],
            sudo: vec!["ALL=(ALL) NOPASSWD:ALL".into()],
            ..User::default()
        };
        let commands = commands(&user, false);
        let lines: Vec<String> = commands.iter().map(|(argv, _)| argv.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "groupadd --force adm",
                "useradd --groups adm --create-home ops",
                "chpasswd --encrypted",
            ]
        );
        assert_eq!(commands.last().unwrap().1, "ops:$6$salt$hash\n");
        assert_eq!(sudo_rules(&user), "ops ALL=(ALL) NOPASSWD:ALL\n");
    }

    #[test]
    fn a_user_who_is_there_is_only_completed() {
        let root = User {
            name: "root".into(),
            locks_password: true,
            ..User::default()
        };
        let lines: Vec<String> = commands(&root, true)
            .iter()
            .map(|(argv, _)| argv.join(" "))
            .collect();
        assert_eq!(lines, ["passwd --quiet --lock root"]);
        let grouped = User {
            groups: vec!["adm".into()],
            locks_password: false,
            ..root
        };
        let lines: Vec<String> = commands(&grouped, true)
            .iter()
            .map(|(argv, _)| argv.join(" "))
            .collect();
        assert_eq!(
            lines,
            ["groupadd --force adm", "usermod --groups adm --append root"]
        );
    }
}
