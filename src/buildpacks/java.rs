//! The java pack: maven, gradle by its wrapper, or plain sources and jars.

use super::dependencies::Files;
use super::versions::{asked_for, is_at_most};
use super::{PackError, Plan, Repository};

/// The version that Debian's default JDK is.
const VERSION: &str = "17";

/// How a repository is built.
enum Tool {
    /// By its own wrapper, or Debian's maven.
    Maven,
    /// By its own wrapper.
    Gradle,
    /// The one jar at its top is the program.
    Jar(String),
    /// By javac; the class with `main`.
    Plain(&'static str),
}

/// Where a program of plain sources begins, and the class it is.
const MAINS: [(&str, &str); 4] =
    [("Main.java", "Main"), ("src/Main.java", "Main"), ("App.java", "App"), ("src/App.java", "App")];

fn tool(repository: &Repository) -> Option<(String, Tool)> {
    if repository.has("pom.xml") {
        return Some(("pom.xml".to_owned(), Tool::Maven));
    }
    let gradle = ["gradlew", "build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"];
    if let Some(file) = gradle.into_iter().find(|file| repository.has(file)) {
        return Some((file.to_owned(), Tool::Gradle));
    }
    let mut jars = repository.paths.iter().filter(|path| !path.contains('/') && path.ends_with(".jar"));
    if let (Some(jar), None) = (jars.next(), jars.next()) {
        return Some((jar.clone(), Tool::Jar(jar.clone())));
    }
    let (file, class) = MAINS.into_iter().find(|(file, _)| repository.has(file))?;
    Some((file.to_owned(), Tool::Plain(class)))
}

pub(super) fn detect(repository: &Repository) -> Option<String> {
    tool(repository).map(|(file, _)| file)
}

pub(super) fn plan(repository: &Repository) -> Result<Plan, PackError> {
    let needs = "a pom.xml, gradlew, one .jar, or a Main.java at the top or in src";
    let (_, tool) = tool(repository).ok_or(PackError::Missing { pack: "java", needs })?;
    let mut plan = Plan::default();
    let run = |what: &str| Some(format!("java $JAVA_OPTS {what}"));
    // Spring Boot and others take their port from there; who does not know it ignores it.
    let jar = "-Dserver.port=$PORT -jar app.jar";
    match tool {
        Tool::Maven => {
            maven(repository, &mut plan);
            plan.command = run(jar);
        }
        Tool::Gradle => {
            if !repository.has("gradlew") {
                return Err(PackError::Missing {
                    pack: "java",
                    needs: "the gradle wrapper: commit `gradlew` and `gradle/wrapper`",
                });
            }
            plan.values.push(("build", "sh ./gradlew --no-daemon --console=plain build -x test -x check".to_owned()));
            plan.values.push(("pick", "build/libs".to_owned()));
            plan.command = run(jar);
        }
        Tool::Jar(name) => {
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c)) && !name.starts_with('-');
            plan.values.push(("build", "true".to_owned()));
            plan.command = run(&format!("-Dserver.port=$PORT -jar {name}")).filter(|_| plain);
        }
        Tool::Plain(class) => {
            let compile = "mkdir -p classes && find . -name '*.java' -not -path '*/test/*' > /tmp/sources \
                           && javac -encoding UTF-8 -cp 'lib/*' -d classes @/tmp/sources";
            plan.values.push(("build", compile.to_owned()));
            plan.command = run(&format!("-cp 'classes:lib/*' {class}"));
        }
    }
    plan.said.extend(version_warning(repository));
    Ok(plan)
}

fn maven(repository: &Repository, plan: &mut Plan) {
    let wrapper = repository.has("mvnw") && repository.has(".mvn/wrapper/maven-wrapper.properties");
    let mvn = if wrapper { "sh ./mvnw" } else { "mvn" };
    if !wrapper {
        plan.values.push(("tools", "maven".to_owned()));
    }
    let pom = repository.text("pom.xml").unwrap_or_default();
    // The poms of modules would all have to be there first.
    if !pom.contains("<modules>") && !pom.contains("<relativePath>") {
        let mut files = Files::default();
        files.take(repository, &["pom.xml"]);
        let beside: Vec<&str> =
            repository.paths.iter().map(String::as_str).filter(|path| path.starts_with(".mvn/")).collect();
        files.take(repository, &beside);
        if wrapper {
            files.take(repository, &["mvnw"]);
        }
        plan.values.push(("copies", files.lines()));
        if files.needs_source() {
            plan.values.push(("source_first", "yes".to_owned()));
        }
        // What cannot be fetched beforehand is fetched by the build itself.
        plan.values.push(("dependencies", format!("{mvn} -B -q dependency:go-offline || true")));
    }
    plan.values.push(("build", format!("{mvn} -B -DskipTests -DoutputFile=target/mvn-dependency-list.log package")));
    plan.values.push(("pick", "target".to_owned()));
}

/// A line when a later version is asked for than there is.
fn version_warning(repository: &Repository) -> Option<String> {
    let properties = repository.text("system.properties")?.lines();
    let version = properties
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "java.runtime.version")
        .map(|(_, version)| version.trim())?;
    let number = version.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_start_matches("1.");
    (!is_at_most(number, VERSION)).then(|| asked_for("system.properties", "Java", version, VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], by: &str, build: &str, command: Option<&str>) {
        let repository = Repository::of(files.iter().copied());
        assert_eq!(detect(&repository).as_deref(), Some(by));
        let plan = plan(&repository).unwrap();
        let value =
            plan.values.iter().find(|(key, _)| *key == "build").map(|(_, text)| text.clone()).unwrap_or_default();
        assert!(value.contains(build), "{value}");
        assert_eq!(plan.command.as_deref(), command);
    }

    #[test]
    fn each_way_of_building_is_found_by_its_file() {
        let jar = Some("java $JAVA_OPTS -Dserver.port=$PORT -jar app.jar");
        check(&[("pom.xml", "<project/>")], "pom.xml", "mvn -B", jar);
        let wrapper = [("pom.xml", "<project/>"), ("mvnw", ""), (".mvn/wrapper/maven-wrapper.properties", "")];
        check(&wrapper, "pom.xml", "sh ./mvnw -B", jar);
        check(&[("gradlew", ""), ("build.gradle", "")], "gradlew", "./gradlew", jar);
        check(
            &[("app-1.0.jar", "")],
            "app-1.0.jar",
            "true",
            Some("java $JAVA_OPTS -Dserver.port=$PORT -jar app-1.0.jar"),
        );
        check(&[("src/Main.java", "")], "src/Main.java", "javac", Some("java $JAVA_OPTS -cp 'classes:lib/*' Main"));
        check(&[("a;b.jar", "")], "a;b.jar", "true", None);
        assert!(plan(&Repository::of([("build.gradle", "")])).unwrap_err().to_string().contains("gradlew"));
    }

    #[test]
    fn a_later_java_than_debians_is_warned_about() {
        for (version, warned) in [("17", false), ("1.8", false), ("11.0.2", false), ("21", true), ("zulu-21.0.1", true)]
        {
            let text = format!("# x\njava.runtime.version={version}\n");
            let said = plan(&Repository::of([("Main.java", ""), ("system.properties", text.as_str())])).unwrap().said;
            assert_eq!(!said.is_empty(), warned, "{version}");
        }
    }
}
