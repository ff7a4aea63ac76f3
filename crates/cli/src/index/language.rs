//! The language of a file by its name.

/// The language of a file by its name or extension; `None` if it is not known.
///
/// ```
/// use mainstay_cli::index::language;
/// assert_eq!(language("src/main.rs"), Some("rust"));
/// assert_eq!(language("Makefile"), Some("make"));
/// assert_eq!(language("notes"), None);
/// ```
pub fn language(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let by_name = match name.as_str() {
        "makefile" | "gnumakefile" => Some("make"),
        "dockerfile" | "containerfile" => Some("dockerfile"),
        "cmakelists.txt" => Some("cmake"),
        "cargo.lock" | "poetry.lock" => Some("toml"),
        "justfile" => Some("just"),
        _ => None,
    };
    if by_name.is_some() {
        return by_name;
    }
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension {
        "rs" => "rust",
        "c" | "h" => "c",
        "cc" | "cpp" | "cxx" | "hpp" | "hh" | "hxx" | "inl" => "cpp",
        "cs" => "csharp",
        "go" => "go",
        "java" => "java",
        "kt" | "kts" => "kotlin",
        "scala" => "scala",
        "swift" => "swift",
        "m" | "mm" => "objective-c",
        "py" | "pyi" => "python",
        "rb" => "ruby",
        "php" => "php",
        "pl" | "pm" => "perl",
        "lua" => "lua",
        "r" => "r",
        "jl" => "julia",
        "hs" => "haskell",
        "ml" | "mli" => "ocaml",
        "ex" | "exs" => "elixir",
        "erl" | "hrl" => "erlang",
        "clj" | "cljs" => "clojure",
        "zig" => "zig",
        "dart" => "dart",
        "js" | "mjs" | "cjs" | "jsx" => "javascript",
        "ts" | "mts" | "cts" | "tsx" => "typescript",
        "html" | "htm" => "html",
        "css" | "scss" | "less" => "css",
        "vue" => "vue",
        "svelte" => "svelte",
        "sh" | "bash" | "zsh" | "fish" => "shell",
        "ps1" => "powershell",
        "bat" | "cmd" => "batch",
        "s" | "asm" => "assembly",
        "sql" => "sql",
        "proto" => "protobuf",
        "graphql" | "gql" => "graphql",
        "cmake" => "cmake",
        "mk" => "make",
        "toml" => "toml",
        "yaml" | "yml" => "yaml",
        "json" | "jsonl" => "json",
        "xml" | "xsd" | "svg" => "xml",
        "ini" | "cfg" | "conf" => "ini",
        "csv" | "tsv" => "csv",
        "md" | "markdown" => "markdown",
        "rst" => "restructuredtext",
        "adoc" => "asciidoc",
        "tex" => "latex",
        "txt" => "text",
        _ => return None,
    })
}
