//! Other spellings of the commands: `env:set` for `env set`, and what people who come from Dokku and Heroku have in their
//! fingers. Words in, words out; what is understood here is quarry's own grammar afterwards.

/// A command line with its words as quarry spells them. What is no other spelling of anything stays as it is.
pub fn normalised(mut words: Vec<String>) -> Vec<String> {
    let Some(place) = command_place(&words) else { return words };
    take_app(&mut words, place);
    let Some(place) = command_place(&words) else { return words };
    if let Some(ours) = translated(&words[place..]) {
        words.splice(place..=place, ours.split(' ').map(str::to_owned));
    } else if let Some((noun, verb)) =
        words[place].split_once(':').filter(|(noun, verb)| is_word(noun) && is_word(verb))
    {
        let pair = [noun.to_owned(), verb.to_owned()];
        words.splice(place..=place, pair);
    }
    adapt(&mut words, place);
    if words[place] == "env" {
        hoist(&mut words, place);
    }
    words
}

/// Where the command stands: options before it may have values.
pub(super) fn command_place(words: &[String]) -> Option<usize> {
    let mut at = 0;
    while at < words.len() && words[at].starts_with('-') {
        at += if ["--stack", "--hq", "--root", "--etc"].contains(&words[at].as_str()) { 2 } else { 1 };
    }
    (at < words.len()).then_some(at)
}

/// What others call it, and what it is here.
const SAME: [(&str, &str); 34] = [
    ("apps", "stacks list"),
    ("apps:create", "stacks create"),
    ("apps:destroy", "destroy"),
    ("apps:exists", "stacks show"),
    ("apps:info", "stacks show"),
    ("apps:list", "stacks list"),
    ("apps:report", "stacks show"),
    ("certs:report", "certs list"),
    ("config:export", "env list"),
    ("config:get", "env get"),
    ("config:set", "env set"),
    ("config:unset", "env unset"),
    ("create", "stacks create"),
    ("cron:list", "tasks list"),
    ("domains:report", "domains list"),
    ("dyno:restart", "restart"),
    ("events:list", "events"),
    ("info", "stacks show"),
    ("letsencrypt:list", "certs list"),
    ("maintenance:disable", "maintenance off"),
    ("maintenance:enable", "maintenance on"),
    ("maintenance:report", "maintenance show"),
    ("open", "urls"),
    ("ps:report", "ps"),
    ("ps:restart", "restart"),
    ("ps:scale", "scale"),
    ("releases:info", "releases"),
    ("releases:list", "releases"),
    ("releases:rollback", "rollback"),
    ("report", "stacks show"),
    ("ssh-keys:add", "keys add"),
    ("ssh-keys:list", "keys list"),
    ("ssh-keys:remove", "keys remove"),
    ("url", "urls"),
];

/// Quarry's own word for a command, whose words these are from its first on.
fn translated(words: &[String]) -> Option<&'static str> {
    let known = SAME.iter().find(|(theirs, _)| *theirs == words[0]);
    let first = words[1..].iter().find(|word| !word.starts_with('-')).map(String::as_str);
    match words[0].as_str() {
        // Quarry's own `config` is about files of servers, by their paths.
        "config:show" if first.is_some_and(|word| !word.starts_with('/')) => Some("env list"),
        "config" if first.is_some_and(|word| !["list", "show", "write", "remove", "help"].contains(&word)) => {
            Some("env")
        }
        _ => known.map(|(_, ours)| *ours),
    }
}

/// Heroku names the stack by an option: `-a blog` becomes `--stack blog` before everything else. What follows the command
/// of `run` is that command's own.
fn take_app(words: &mut Vec<String>, place: usize) {
    let is_run = words[place] == "run" || words[place].starts_with("run:");
    let mut at = place + 1;
    while at < words.len() && words[at] != "--" && (!is_run || words[at].starts_with('-')) {
        let named = ["-a", "--app"].contains(&words[at].as_str()) && at + 1 < words.len();
        let value = match words[at].strip_prefix("--app=") {
            Some(value) => Some((value.to_owned(), 1)),
            None => named.then(|| (words[at + 1].clone(), 2)),
        };
        let Some((stack, count)) = value else {
            at += 1;
            continue;
        };
        words.drain(at..at + count);
        // A listing of another's settings that has lost its only word is still theirs.
        if words[place] == "config" && words.len() == place + 1 {
            words[place] = "env".to_owned();
        }
        words.splice(0..0, ["--stack".to_owned(), stack]);
        return;
    }
}

/// Options and numbers that are written differently.
fn adapt(words: &mut Vec<String>, place: usize) {
    match words[place].as_str() {
        "logs" => of_logs(words, place),
        "rollback" => {
            if let Some(last) = words[place + 1..].last_mut()
                && let Some(number) = last.strip_prefix('v').filter(|number| number.parse::<u64>().is_ok())
            {
                *last = number.to_owned();
            }
        }
        _ => {}
    }
}

/// `--num 10`, `-p web`.
fn of_logs(words: &mut Vec<String>, place: usize) {
    let mut at = place + 1;
    while at < words.len() {
        match words[at].as_str() {
            "--num" => words[at] = "-n".to_owned(),
            "-p" | "--ps" | "--dyno" | "--process-name" if at + 1 < words.len() => {
                let node = words[at + 1].clone();
                words.drain(at..at + 2);
                let own = words[..place].iter().position(|word| word == "--stack").map(|at| words[at + 1].clone());
                match words[place + 1..].iter_mut().find(|word| !word.starts_with('-') && word.parse::<u32>().is_err())
                {
                    Some(stack) => stack.push_str(&format!("/{node}")),
                    None => words.insert(place + 1, own.map_or(node.clone(), |stack| format!("{stack}/{node}"))),
                }
                return of_logs(words, place);
            }
            _ => {}
        }
        at += 1;
    }
}

/// What people of other systems look for and do not find as a command, by how it begins.
const ELSEWHERE: [(&str, &str); 22] = [
    ("access:", "rights: `rights grant USER STACK deploy`"),
    ("addons", "a node of type `service` in quarry.yml"),
    ("buildpacks:", "`buildpack` in quarry.yml, or app.json, .buildpacks and project.toml"),
    ("certs:add", "`certs add DOMAIN… < PEM`: chain and key on standard input"),
    ("checks:", "`health` in quarry.yml, or app.json and CHECKS"),
    ("docker-options:", "quarry.yml: containers get no rights over their server"),
    ("domains:clear", "`domains remove STACK DOMAIN…`"),
    ("domains:set", "`domains add` and `domains remove`"),
    ("enter", "`run STACK/NODE sh`, in a container of its own"),
    ("git:", "a push: `git push quarry master`, or `deploy STACK COMMIT`"),
    ("letsencrypt:", "a setting: write an address to /etc/quarry/acme/email, and every domain gets a certificate"),
    ("network:", "`link` in quarry.yml"),
    ("nginx:", "`router` in quarry.yml"),
    ("pg", "a node of type `service` in quarry.yml"),
    ("pipelines", "another stack: push the same commit there"),
    ("ports:", "`expose` in quarry.yml"),
    ("proxy:", "`type` and `expose` in quarry.yml"),
    ("ps:exec", "`run STACK/NODE sh`, in a container of its own"),
    ("ps:rebuild", "`deploy STACK master`"),
    ("ps:stop", "`scale STACK NODE=0`, and `scale STACK NODE=1` again"),
    ("resource:", "`size` and `cpus` in quarry.yml"),
    ("storage:", "`volumes` in quarry.yml"),
];

/// Where to find what a command of another system did; `None` for what no system has.
pub fn advice(words: &[String]) -> Option<String> {
    let first = &words[command_place(words)?];
    let databases =
        ["postgres:", "mysql:", "mariadb:", "redis:", "mongo:", "rabbitmq:", "elasticsearch:", "memcached:"];
    let what = match ELSEWHERE.iter().find(|(theirs, _)| first.starts_with(theirs)) {
        Some((_, what)) => what,
        None if databases.iter().any(|theirs| first.starts_with(theirs)) => "a node of type `service` in quarry.yml",
        None => return None,
    };
    Some(format!("what `{first}` is elsewhere is here {what}"))
}

/// Moves what means the same anywhere before the command: `env` alone is a command with a stack, and clap takes an
/// option behind it for its own.
fn hoist(words: &mut Vec<String>, mut place: usize) {
    let mut at = place + 1;
    while at < words.len() && words[at] != "--" {
        let count = match words[at].as_str() {
            "--json" => 1,
            "--stack" if at + 1 < words.len() => 2,
            word if word.starts_with("--stack=") => 1,
            _ => 0,
        };
        if count > 0 {
            let moved: Vec<String> = words.drain(at..at + count).collect();
            words.splice(place..place, moved);
            place += count;
        }
        at += count.max(1);
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn check(line: &str, expected: &str) {
        assert_eq!(normalised(words(line)).join(" "), expected, "{line}");
    }

    #[test]
    fn verb_noun_spellings_mean_the_same() {
        check("env:set blog A=b:c", "env set blog A=b:c");
        check("--json stacks:list", "--json stacks list");
        check("--stack shop env:set A=1", "--stack shop env set A=1");
        check("run a:b", "run a:b");
        check("env --json list blog", "--json env list blog");
        check("env list --stack x --json", "--stack x --json env list");
        check("run env --json", "run env --json");
        check("http://x", "http://x");
    }

    #[test]
    fn the_stack_of_an_option_is_the_one_that_is_meant() {
        check("config:set A=1 -a blog", "--stack blog env set A=1");
        check("config -a blog", "--stack blog env");
        check("config --app=blog", "--stack blog env");
        check("ps:scale web=2 --app blog", "--stack blog scale web=2");
        check("run -a blog ls -a x", "--stack blog run ls -a x");
        check("run blog ls -a", "run blog ls -a");
        check("apps:destroy -a blog --confirm blog", "--stack blog destroy --confirm blog");
    }

    #[test]
    fn quarry_s_own_config_files_stay_what_they_are() {
        check("config", "config");
        check("config list", "config list");
        check("config show /etc/x", "config show /etc/x");
        check("config:show /etc/x", "config show /etc/x");
        check("config blog", "env blog");
        check("config:show blog", "env list blog");
    }

    #[test]
    fn other_options_are_understood() {
        check("logs blog -t --num 5", "logs blog -t -n 5");
        check("logs blog -p web -t", "logs blog/web -t");
        check("logs -n 5 -p web blog", "logs -n 5 blog/web");
        check("logs -p web -a blog", "--stack blog logs blog/web");
        check("rollback v12 -a blog", "--stack blog rollback 12");
        check("rollback blog v12", "rollback blog 12");
        check("rollback victor", "rollback victor");
        check("destroy blog", "destroy blog");
    }

    #[test]
    fn what_is_no_command_here_is_told_where_it_is() {
        let told = |line: &str| advice(&words(line));
        assert!(told("postgres:create db").unwrap().contains("type `service`"));
        assert!(told("--json nginx:set blog x y").unwrap().contains("`router` in quarry.yml"));
        assert_eq!(told("frobnicate"), None);
    }
}
