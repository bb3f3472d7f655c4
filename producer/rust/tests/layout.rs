//! The hand-written declarations against what a C compiler makes of the header.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sutra_embed::{ffi, Priority, Reason, Source, Status};

fn header_dir() -> PathBuf {
    env::var_os("SUTRA_EMBED_INCLUDE_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../include")), PathBuf::from)
}

/// Compiles a C program against the header and RETURNS what it prints.
fn output_of_c(name: &str, body: &str) -> String {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (dir.join(format!("{name}.c")), dir.join(name));
    let text = format!("#include <sutra/embed.h>\n#include <stdio.h>\nint main(void) {{\n{body}return 0;\n}}\n");
    fs::write(&source, text).unwrap();
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let compiled = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Werror", "-I"])
        .arg(header_dir())
        .arg("-o")
        .args([&program, &source])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap()
}

#[test]
fn structures_are_laid_out_as_the_c_compiler_does() {
    let (mut body, mut expected) = (String::new(), String::new());
    for (name, size, fields) in ffi::struct_layouts() {
        writeln!(body, "printf(\"{name} %zu\\n\", sizeof({name}));").unwrap();
        writeln!(expected, "{name} {size}").unwrap();
        for (field, offset, size) in fields {
            let of = format!("{name}, {field}");
            writeln!(body, "printf(\"{of} %zu %zu\\n\", offsetof({of}), sizeof((({name} *)0)->{field}));").unwrap();
            writeln!(expected, "{of} {offset} {size}").unwrap();
        }
    }
    assert_eq!(output_of_c("layout", &body), expected);
}

#[test]
fn constants_have_the_header_s_numbers() {
    let mut constants: Vec<(&str, u32)> = vec![
        ("SUTRA_ABI_VERSION", ffi::SUTRA_ABI_VERSION),
        ("SUTRA_SPIN_US_DEFAULT", ffi::SUTRA_SPIN_US_DEFAULT),
        ("SUTRA_NORMALIZE", ffi::SUTRA_NORMALIZE),
        ("SUTRA_RAW", ffi::SUTRA_RAW),
        ("SUTRA_REJECT", ffi::SUTRA_REJECT),
        ("SUTRA_CACHE_SKIP_LOOKUP", ffi::SUTRA_CACHE_SKIP_LOOKUP),
        ("SUTRA_CACHE_SKIP_STORE", ffi::SUTRA_CACHE_SKIP_STORE),
        ("SUTRA_FAIL_FAST", ffi::SUTRA_FAIL_FAST),
    ];
    constants.extend(Status::ALL.iter().map(|(value, name)| (*name, value.number())));
    constants.extend(Source::ALL.iter().map(|(value, name)| (*name, value.number())));
    constants.extend(Reason::ALL.iter().map(|(value, name)| (*name, value.number())));
    constants.extend(Priority::ALL.iter().map(|(value, name)| (*name, value.number())));
    let (mut body, mut expected) = (String::new(), String::new());
    for (name, number) in &constants {
        writeln!(body, "printf(\"{name} %u\\n\", (unsigned){name});").unwrap();
        writeln!(expected, "{name} {number}").unwrap();
    }
    assert_eq!(output_of_c("constants", &body), expected);

    // And none of the header's is missing here, but for those of options that no engine serves yet.
    let header = fs::read_to_string(header_dir().join("sutra/embed.h")).unwrap();
    for line in header.lines().filter(|line| line.starts_with("#define SUTRA_") && !line.contains('(')) {
        let mut words = line.split_whitespace().skip(1);
        let (name, is_number) = (words.next().unwrap(), words.next().map_or(false, |word| word.ends_with('u')));
        let unserved = name.starts_with("SUTRA_DATA_") || name.starts_with("SUTRA_TRUNCATE_");
        assert!(!is_number || unserved || constants.iter().any(|(ours, _)| *ours == name), "{name} is not declared");
    }
}

#[test]
fn every_function_of_the_header_is_declared() {
    let header = fs::read_to_string(header_dir().join("sutra/embed.h")).unwrap();
    let ours = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ffi.rs")).unwrap();
    let mut count = 0;
    for line in header.lines().filter(|line| line.starts_with("SUTRA_API ")) {
        let name = line.split('(').next().unwrap().split_whitespace().last().unwrap().trim_start_matches('*');
        let declaration = ours.split(&format!("pub fn {name}(")).nth(1).unwrap_or_else(|| panic!("{name} is missing"));
        let parameters = |text: &str, open: char| text.split(open).next().unwrap().matches(':').count();
        // As many parameters: a colon each in Rust; a comma less in C.
        let in_c = header.split(&format!("{name}(")).nth(1).unwrap().split(')').next().unwrap();
        let expected = if in_c.trim() == "void" { 0 } else { in_c.matches(',').count() + 1 };
        assert_eq!(parameters(declaration, ')'), expected, "parameters of {name}");
        count += 1;
    }
    assert!(count > 15, "{count} functions were found in the header");
}

#[test]
fn the_library_that_runs_has_this_interface() {
    assert_eq!(sutra_embed::abi_version(), ffi::SUTRA_ABI_VERSION);
}
