//! Finds libsutra_embed and says how to link it.
//!
//! SUTRA_EMBED_LIB_DIR   the directory that it lies in; without it pkg-config is asked for sutra-embed
//! SUTRA_EMBED_LINK      `dynamic` or `static`; without it dynamic where libsutra_embed.so is there
//!
//! A crate that depends on this one gets the directory as DEP_SUTRA_EMBED_LIB_DIR and whether it was linked
//! dynamically as DEP_SUTRA_EMBED_DYNAMIC (1 or 0), for an rpath of its own programs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{exit, Command};

fn fail(what: &str) -> ! {
    eprintln!(
        "sutra-embed: {what}\n\
         Build the client library (cmake --build build --target sutra_client sutra_client_static) and set\n\
         SUTRA_EMBED_LIB_DIR to the directory of libsutra_embed.so or libsutra_embed.a, or install it where\n\
         `pkg-config --libs sutra-embed` finds it (PKG_CONFIG_PATH)."
    );
    exit(1);
}

fn lib_dir() -> PathBuf {
    if let Some(dir) = env::var_os("SUTRA_EMBED_LIB_DIR") {
        return PathBuf::from(dir);
    }
    let asked = Command::new("pkg-config").args(["--variable=libdir", "sutra-embed"]).output();
    match asked {
        Ok(output) if output.status.success() => PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()),
        Ok(output) => fail(&format!(
            "SUTRA_EMBED_LIB_DIR is not set, and pkg-config does not know sutra-embed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => fail(&format!("SUTRA_EMBED_LIB_DIR is not set, and pkg-config does not run: {error}")),
    }
}

fn is_dynamic(dir: &Path) -> bool {
    let shared = dir.join("libsutra_embed.so").exists();
    let archive = dir.join("libsutra_embed.a").exists();
    match env::var("SUTRA_EMBED_LINK").as_deref() {
        Ok("dynamic") if shared => true,
        Ok("static") if archive => false,
        Ok(kind @ ("dynamic" | "static")) => {
            fail(&format!("SUTRA_EMBED_LINK is {kind}, and {} has no such library", dir.display()))
        }
        Ok(other) => fail(&format!("SUTRA_EMBED_LINK is dynamic or static, not '{other}'")),
        Err(_) if shared || archive => shared,
        Err(_) => fail(&format!("there is no libsutra_embed.so or .a in {}", dir.display())),
    }
}

fn main() {
    for name in ["SUTRA_EMBED_LIB_DIR", "SUTRA_EMBED_LINK", "PKG_CONFIG_PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let dir = lib_dir();
    let dynamic = is_dynamic(&dir);
    println!("cargo:rustc-link-search=native={}", dir.display());
    println!("cargo:rustc-link-lib={}=sutra_embed", if dynamic { "dylib" } else { "static" });
    if dynamic {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", dir.display());
    }
    println!("cargo:lib_dir={}", dir.display());
    println!("cargo:dynamic={}", u8::from(dynamic));
}
