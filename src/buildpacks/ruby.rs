//! The ruby pack: bundler, Rails and Rack.

use std::collections::BTreeSet;

use super::dependencies::Files;
use super::versions::{asked_for, is_within};
use super::{PackError, Plan, Repository, text};

/// The version that Debian's ruby is.
const VERSION: &str = "3.1";

/// Gems that are compiled against a library, and the Debian packages with it.
const LIBRARIES: [(&str, &str); 11] = [
    ("charlock_holmes", "libicu-dev"),
    ("curb", "libcurl4-openssl-dev"),
    ("ffi", "libffi-dev"),
    ("mysql2", "default-libmysqlclient-dev"),
    ("nokogiri", "libxml2-dev libxslt1-dev zlib1g-dev"),
    ("pg", "libpq-dev"),
    ("psych", "libyaml-dev"),
    ("rmagick", "libmagickwand-dev"),
    ("ruby-vips", "libvips42"),
    ("rugged", "cmake libssl-dev"),
    ("sqlite3", "libsqlite3-dev"),
];

pub(super) fn detect(repository: &Repository) -> Option<String> {
    repository.has("Gemfile").then(|| "Gemfile".to_owned())
}

pub(super) fn plan(repository: &Repository) -> Result<Plan, PackError> {
    let needs = "a Gemfile at the top of the repository";
    let gemfile = text(repository, "Gemfile")?.ok_or(PackError::Missing { pack: "ruby", needs })?;
    let mut plan = Plan::default();
    let mut files = Files::default();
    files.take(repository, &["Gemfile", "Gemfile.lock", ".ruby-version"]);
    for path in repository.paths.iter().filter(|path| path.ends_with(".gemspec") || path.starts_with("vendor/cache/")) {
        files.take(repository, &[path]);
    }
    if gemfile.lines().any(is_local) {
        files.need_source();
        plan.said.push("Gemfile names gems of the repository itself: they are installed at every push".to_owned());
    }
    plan.values.push(("copies", files.lines()));
    if files.needs_source() {
        plan.values.push(("source_first", "yes".to_owned()));
    }
    let gems = gems(gemfile, repository.text("Gemfile.lock"));
    if !gems.is_empty() {
        let libraries = LIBRARIES.iter().filter(|(gem, _)| gems.contains(gem)).map(|(_, packages)| *packages);
        let all: Vec<&str> = ["libffi-dev libyaml-dev"].into_iter().chain(libraries).collect();
        plan.values.push(("toolchain", all.join(" ")));
    }
    if repository.has("Gemfile.lock") {
        plan.values.push(("locked", "yes".to_owned()));
    } else {
        plan.said
            .push("Warning: there is no Gemfile.lock; commit it, or each build may install other versions".to_owned());
    }
    if repository.has("Rakefile") && (gems.contains("sprockets") || gems.contains("propshaft")) {
        plan.values.push(("assets", "yes".to_owned()));
    }
    plan.said.extend(version_warning(repository, gemfile));
    plan.command = command(repository, &gems);
    Ok(plan)
}

/// Names of the gems in the Gemfile and its lock file.
fn gems<'a>(gemfile: &'a str, lock: Option<&'a str>) -> BTreeSet<&'a str> {
    let named = gemfile.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("gem ")?.trim_start();
        rest.strip_prefix(['"', '\''])?.split(['"', '\'']).next()
    });
    let locked = lock.unwrap_or_default().lines().filter_map(|line| line.strip_prefix("    ")?.split(' ').next());
    named.chain(locked.filter(|name| !name.is_empty())).collect()
}

fn is_local(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("gemspec") || (!line.starts_with('#') && (line.contains("path:") || line.contains(":path =>")))
}

/// A line when another minor version is asked for than there is: bundler then refuses to install.
fn version_warning(repository: &Repository, gemfile: &str) -> Option<String> {
    let in_gemfile = gemfile.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix("ruby ")?.trim_start();
        rest.strip_prefix(['"', '\''])?.split(['"', '\'']).next()
    });
    let in_file = || Some((".ruby-version", repository.text(".ruby-version")?.lines().next()?.trim()));
    let (file, version) = in_gemfile.map(|version| ("Gemfile", version)).or_else(in_file)?;
    let version = version.trim_start_matches("ruby-");
    (!is_within(version, VERSION)).then(|| asked_for(file, "Ruby", version, VERSION))
}

/// As Heroku starts Rails and Rack.
fn command(repository: &Repository, gems: &BTreeSet<&str>) -> Option<String> {
    if gems.contains("railties") || gems.contains("rails") {
        let rails = if repository.has("bin/rails") { "bin/rails" } else { "bundle exec rails" };
        return Some(format!("{rails} server -b 0.0.0.0 -p $PORT -e $RAILS_ENV"));
    }
    let rack = "bundle exec rackup config.ru -o 0.0.0.0 -p $PORT";
    repository.has("config.ru").then(|| rack.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(files: &[(&str, &str)]) -> Plan {
        plan(&Repository::of(files.iter().copied())).unwrap()
    }

    fn value(plan: &Plan, key: &str) -> String {
        plan.values.iter().find(|(known, _)| *known == key).map(|(_, text)| text.clone()).unwrap_or_default()
    }

    #[test]
    fn rails_and_rack_are_started_as_on_heroku() {
        let lock = ("Gemfile.lock", "GEM\n  specs:\n    railties (7.0)\n      thor\n    sprockets (4)\n    pg (1.5)\n");
        let rails = planned(&[("Gemfile", "gem 'rails'"), lock, ("bin/rails", ""), ("Rakefile", "")]);
        assert_eq!(rails.command.as_deref(), Some("bin/rails server -b 0.0.0.0 -p $PORT -e $RAILS_ENV"));
        assert_eq!((value(&rails, "assets").as_str(), value(&rails, "locked").as_str()), ("yes", "yes"));
        assert_eq!(value(&rails, "toolchain"), "libffi-dev libyaml-dev libpq-dev");
        let rack = planned(&[("Gemfile", "gem \"rack\""), ("config.ru", "")]);
        assert_eq!(rack.command.as_deref(), Some("bundle exec rackup config.ru -o 0.0.0.0 -p $PORT"));
        let plain = planned(&[("Gemfile", "source 'https://rubygems.org'\n"), ("app.rb", "")]);
        assert_eq!((plain.command.as_deref(), value(&plain, "toolchain").as_str()), (None, ""));
    }

    #[test]
    fn another_ruby_than_debians_is_warned_about() {
        let check = |gemfile: &str, file: &str, expected: Option<&str>| {
            let said = planned(&[("Gemfile", gemfile), (".ruby-version", file), ("Gemfile.lock", "")]).said;
            assert_eq!(said.first().map(String::as_str), expected, "{gemfile} {file}");
        };
        check("ruby '3.1.4'", "3.3.0", None);
        check("", "ruby-3.1", None);
        check("", "3.3.0", Some("Warning: .ruby-version asks for Ruby 3.3.0; the buildpack has 3.1 and uses that"));
        check("ruby \"3.2.2\"", "", Some("Warning: Gemfile asks for Ruby 3.2.2; the buildpack has 3.1 and uses that"));
    }

    #[test]
    fn gems_of_the_repository_need_its_source() {
        for (line, expected) in
            [("gem 'a', path: 'lib/a'", "yes"), ("gemspec", "yes"), ("# path: x", ""), ("gem 'a'", "")]
        {
            assert_eq!(value(&planned(&[("Gemfile", line)]), "source_first"), expected, "{line}");
        }
    }
}
