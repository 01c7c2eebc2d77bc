//! How a Python app starts that has no Procfile: as railpack guesses it, and only with a server that is installed.

use std::path::Path;

use crate::error::PackError;
use crate::files;

/// Files in which a program is looked for.
const PROGRAMS: [&str; 5] = ["main.py", "app.py", "server.py", "src/main.py", "app/main.py"];

/// What says that an app is made with a framework, and the servers that run it, the usual one first.
const FRAMEWORKS: [(&str, &str, &[&str]); 3] = [
    ("fastapi", "FastAPI", &["uvicorn", "hypercorn"]),
    ("starlette", "Starlette", &["uvicorn", "hypercorn"]),
    ("flask", "Flask", &["gunicorn"]),
];

/// How an app would start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Guess {
    /// A package; it need not be installed.
    pub(super) server: &'static str,
    /// A shell line.
    pub(super) line: String,
}

/// How the app starts, if there is no doubt about it: with a server that is installed, or else with the usual one of its framework.
pub(super) fn guess(app: &Path, is_installed: impl Fn(&str) -> bool) -> Result<Option<Guess>, PackError> {
    let mut guesses = Vec::new();
    if is_installed("django") {
        let manage = files::read(app, "manage.py")?.unwrap_or_default();
        let line = |project| format!("gunicorn --bind 0.0.0.0:$PORT {project}.wsgi");
        guesses.extend(django_project(&manage).map(|project| Guess { server: "gunicorn", line: line(project) }));
    }
    for (framework, class, servers) in FRAMEWORKS {
        if !is_installed(framework) {
            continue;
        }
        for file in PROGRAMS {
            let text = files::read(app, file)?.unwrap_or_default();
            let Some(name) = variable(&text, class) else { continue };
            let program = format!("{}:{name}", file.trim_end_matches(".py").replace('/', "."));
            guesses.extend(servers.iter().map(|server| Guess { server, line: line(server, &program) }));
            break;
        }
    }
    let best = guesses.iter().position(|guess| is_installed(guess.server)).unwrap_or(0);
    Ok((best < guesses.len()).then(|| guesses.swap_remove(best)))
}

fn line(server: &str, program: &str) -> String {
    match server {
        "uvicorn" => format!("uvicorn {program} --host 0.0.0.0 --port $PORT"),
        _ => format!("{server} --bind 0.0.0.0:$PORT {program}"),
    }
}

/// `mysite`, of `os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")`; settings may be a folder.
fn django_project(manage: &str) -> Option<&str> {
    let (_, rest) = manage.split_once("DJANGO_SETTINGS_MODULE")?;
    let module = rest.split(['"', '\'']).map(str::trim).find(|part| part.contains('.') && !part.contains(' '))?;
    module.split_once(".settings").map(|(project, _)| project)
}

/// `app`, of `app = FastAPI(` at the beginning of a line.
fn variable<'a>(text: &'a str, class: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let name = name.split(':').next()?.trim_end();
        let (called, _) = value.split_once('(')?;
        let called = called.trim().rsplit('.').next()?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (is_name && called == class).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_known_frameworks_start_with_the_server_that_is_installed() {
        let manage = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')";
        let fast = "import fastapi\n\napi: fastapi.FastAPI = fastapi.FastAPI(title=\"(x)\")\n";
        let flask = "app = Flask(__name__)\n";
        let wsgi = |program| Some(("gunicorn", format!("gunicorn --bind 0.0.0.0:$PORT {program}")));
        let asgi = |program| Some(("uvicorn", format!("uvicorn {program} --host 0.0.0.0 --port $PORT")));
        for (file, text, installed, expected) in [
            ("manage.py", manage, "django gunicorn", wsgi("mysite.wsgi")),
            ("manage.py", manage, "django", wsgi("mysite.wsgi")),
            ("manage.py", manage, "flask gunicorn", None),
            ("app.py", flask, "flask gunicorn", wsgi("app:app")),
            ("app.py", flask, "flask", wsgi("app:app")),
            ("app.py", "def make():\n    app = Flask(__name__)\n", "flask gunicorn", None),
            ("main.py", fast, "starlette fastapi uvicorn", asgi("main:api")),
            ("app/main.py", "app = FastAPI()", "fastapi uvicorn", asgi("app.main:app")),
            (
                "main.py",
                fast,
                "fastapi hypercorn",
                Some(("hypercorn", "hypercorn --bind 0.0.0.0:$PORT main:api".into())),
            ),
            ("main.py", fast, "starlette fastapi", asgi("main:api")),
            ("main.py", "print('FastAPI()')", "fastapi uvicorn", None),
        ] {
            let app = tempfile::tempdir().unwrap();
            let path = app.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            let is_installed = |name: &str| installed.split(' ').any(|known| known == name);
            let expected = expected.map(|(server, line)| Guess { server, line });
            assert_eq!(guess(app.path(), is_installed).unwrap(), expected, "{file} {text} {installed}");
        }
    }
}
