//! Plain text tables.

/// Formats rows as a table with aligned columns: the first is left-aligned, the others right-aligned.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row.get(column).map_or(0, |cell| cell.chars().count()))
            .chain([header[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let mut text = String::new();
        for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            if i == 0 {
                text = format!("{cell}{pad}");
            } else {
                text += &format!("  {pad}{cell}");
            }
        }
        text.trim_end().to_owned()
    };
    let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    let rule = widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>().join("  ");
    let mut lines = vec![line(&header), rule];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_align() {
        let text = super::table(
            &["what", "linear"],
            &[vec!["trained".into(), "81.2".into()], vec!["raw".into(), "9.1".into()]],
        );
        assert_eq!(text, "what     linear\n-------  ------\ntrained    81.2\nraw         9.1");
    }
}
