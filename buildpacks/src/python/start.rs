//! How a Python app starts that has no Procfile: as railpack guesses it, and only with a server that is installed.

use std::path::Path;

use crate::error::PackError;
use crate::files;

/// Files in which a program is looked for.
const PROGRAMS: [&str; 5] = ["main.py", "app.py", "server.py", "src/main.py", "app/main.py"];

/// The shell line that starts the app, if there is no doubt about it.
pub(super) fn line(app: &Path, is_installed: impl Fn(&str) -> bool) -> Result<Option<String>, PackError> {
    if is_installed("django") && is_installed("gunicorn") {
        let manage = files::read(app, "manage.py")?.unwrap_or_default();
        if let Some(project) = django_project(&manage) {
            return Ok(Some(format!("gunicorn --bind 0.0.0.0:$PORT {project}.wsgi")));
        }
    }
    for (framework, class, server) in
        [("fastapi", "FastAPI", "uvicorn"), ("starlette", "Starlette", "uvicorn"), ("flask", "Flask", "gunicorn")]
    {
        if !is_installed(framework) || !is_installed(server) {
            continue;
        }
        for file in PROGRAMS {
            let text = files::read(app, file)?.unwrap_or_default();
            let Some(name) = variable(&text, class) else { continue };
            let module = file.trim_end_matches(".py").replace('/', ".");
            return Ok(Some(match server {
                "uvicorn" => format!("uvicorn {module}:{name} --host 0.0.0.0 --port $PORT"),
                _ => format!("gunicorn --bind 0.0.0.0:$PORT {module}:{name}"),
            }));
        }
    }
    Ok(None)
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
        for (file, text, installed, expected) in [
            ("manage.py", manage, "django gunicorn", Some("gunicorn --bind 0.0.0.0:$PORT mysite.wsgi")),
            ("manage.py", manage, "django", None),
            ("app.py", "app = Flask(__name__)\n", "flask gunicorn", Some("gunicorn --bind 0.0.0.0:$PORT app:app")),
            ("app.py", "app = Flask(__name__)\n", "flask", None),
            ("app.py", "def make():\n    app = Flask(__name__)\n", "flask gunicorn", None),
            ("main.py", fast, "fastapi uvicorn", Some("uvicorn main:api --host 0.0.0.0 --port $PORT")),
            (
                "app/main.py",
                "app = FastAPI()",
                "fastapi uvicorn",
                Some("uvicorn app.main:app --host 0.0.0.0 --port $PORT"),
            ),
            ("main.py", "print('FastAPI()')", "fastapi uvicorn", None),
        ] {
            let app = tempfile::tempdir().unwrap();
            let path = app.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            let is_installed = |name: &str| installed.split(' ').any(|known| known == name);
            assert_eq!(line(app.path(), is_installed).unwrap().as_deref(), expected, "{file} {text}");
        }
    }
}
