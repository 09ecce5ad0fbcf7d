//! Just enough of Rust's lexical structure to look for words in code and nowhere else.

/// `source` with the insides of comments, strings and characters blanked.
///
/// Every other byte keeps its place, line breaks included, so positions in the result are
/// positions in the source.
pub(super) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match skip(bytes, at) {
            Some(end) => end,
            None => {
                out.push(bytes[at]);
                at += 1;
                continue;
            }
        };
        out.extend(bytes[at..end].iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    // Only whole comments and literals were blanked, so what remains is still UTF-8.
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the comment or literal that starts at `at`, if one does.
fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment(rest));
    }
    let after_word = at > 0 && is_word(bytes[at - 1]);
    match rest[0] {
        b'"' => Some(at + quoted(rest, 1)),
        // r"…", r#"…"#, br"…": the letter must not end a longer word.
        b'r' if !after_word || bytes[at - 1] == b'b' => raw_string(rest).map(|len| at + len),
        b'\'' => character(rest).map(|len| at + len),
        _ => None,
    }
}

/// Length of the block comment that starts `rest`; they nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut i) = (0_usize, 0);
    while i < rest.len() {
        if rest[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if rest[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

/// Length of the string whose opening quote is before `from`.
fn quoted(rest: &[u8], from: usize) -> usize {
    let mut i = from;
    while i < rest.len() {
        match rest[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&b| b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None; // A raw identifier or a plain word.
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = 2 + hashes;
    let found = rest[body..].windows(close.len()).position(|w| w == close);
    Some(found.map_or(rest.len(), |p| body + p + close.len()))
}

/// Length of the character literal that starts `rest`; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        // The byte after the backslash may itself be a quote.
        let close = rest.get(3..)?.iter().position(|&b| b == b'\'')?;
        return Some(3 + close + 1);
    }
    // One character of one to four bytes, then the quote; 'a in a lifetime has none there.
    let first = *rest.get(1)?;
    let len = match first {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (rest.get(1 + len) == Some(&b'\'')).then_some(len + 2)
}

/// Byte offsets at which `word` stands alone in `code`.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at == 0 || !is_word(bytes[at - 1]);
        let after = bytes.get(at + word.len()).is_none_or(|&b| !is_word(b));
        before && (after || !is_word(bytes[at + word.len() - 1]))
    })
}

/// The line, from 1, of a byte offset.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count() + 1
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_comments_and_literals_only() {
        let cases = [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* unsafe */ y */ b", "a                        b"),
            (r#"f("unsafe \" x") + g"#, r#"f(             ) + g"#),
            ("f(r#\"unsafe \" \"#) + g", "f(              ) + g"),
            ("br\"x\" y", "b     y"),
            ("'\"' + '\\'' + x", "    +      + x"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("'é' z", "     z"),
            ("for r in x", "for r in x"),
        ];
        for (source, expected) in cases {
            let got = code_only(source);
            assert_eq!(got.trim_end(), expected.trim_end(), "{source}");
            assert_eq!(got.len(), source.len(), "{source}");
        }
    }

    #[test]
    fn a_word_stands_alone() {
        let found = |code: &str| words(code, "unsafe").count();
        assert_eq!(found("unsafe { unsafe_op(); not_unsafe() }"), 1);
        assert_eq!(words("todo!(); mytodo!()", "todo!").count(), 1);
        assert_eq!(words("todo!(x)", "todo!").count(), 1);
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!(line_of("a\nb\nc", 0), 1);
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }
}
