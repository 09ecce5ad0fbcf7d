//! A writer whose output is well-formed XML, and HTML too.

/// Elements without contents in HTML. Every other one is closed by a tag of its own outside of a drawing.
const VOID: [&str; 5] = ["meta", "br", "hr", "img", "link"];

/// Text of a page or of a drawing. What is opened is closed in order, text and values of attributes are escaped.
#[derive(Default)]
pub(crate) struct Xml {
    out: String,
    open: Vec<&'static str>,
}

impl Xml {
    /// Opens an element.
    pub(crate) fn open(&mut self, name: &'static str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes);
        self.out.push('>');
        self.open.push(name);
    }

    /// Closes the element that was opened last.
    pub(crate) fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.out.push_str("</");
            self.out.push_str(name);
            self.out.push('>');
        }
    }

    /// An element without contents.
    pub(crate) fn empty(&mut self, name: &'static str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes);
        if VOID.contains(&name) || self.open.contains(&"svg") {
            self.out.push_str("/>");
        } else {
            self.out.push_str("></");
            self.out.push_str(name);
            self.out.push('>');
        }
    }

    /// An element that holds text only.
    pub(crate) fn element(&mut self, name: &'static str, attributes: &[(&str, &str)], text: &str) {
        self.open(name, attributes);
        self.text(text);
        self.close();
    }

    /// Text, escaped.
    pub(crate) fn text(&mut self, text: &str) {
        escape(text, &mut self.out);
    }

    /// Text of this crate that is well-formed already.
    pub(crate) fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Begins a new line of the file.
    pub(crate) fn line(&mut self) {
        self.out.push('\n');
    }

    /// The whole text, everything closed.
    pub(crate) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.out
    }

    fn tag(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.out.push('<');
        self.out.push_str(name);
        for (key, value) in attributes {
            self.out.push(' ');
            self.out.push_str(key);
            self.out.push_str("=\"");
            escape(value, &mut self.out);
            self.out.push('"');
        }
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(c),
            // XML 1.0 has no way to write these.
            c if c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c) || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_from_a_reader() {
        let text = "a < b & \"c\" 'd' > e\u{0}\u{b}\u{1F600}";
        let mut xml = Xml::default();
        xml.open("p", &[("title", text)]);
        xml.text(text);
        xml.empty("br", &[]);
        xml.empty("td", &[]);
        let written = xml.finish();
        let read = roxmltree::Document::parse(&written).unwrap();
        let want = text.replace(['\u{0}', '\u{b}'], "\u{fffd}");
        assert_eq!(read.root_element().text(), Some(want.as_str()));
        assert_eq!(read.root_element().attribute("title"), Some(want.as_str()));
        assert!(written.ends_with("<br/><td></td></p>"), "{written}");
    }
}
