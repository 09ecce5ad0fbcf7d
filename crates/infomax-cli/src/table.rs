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

/// A curve as a line of blocks: the mean of the values of each part of the steps `0..=last`, on a given scale. A part
/// between others that has no values lies on the straight line between them; what is before or behind all is empty.
pub(crate) fn sparkline(points: &[(u64, f64)], width: usize, last: u64, (low, high): (f64, f64)) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = width.min(last as usize + 1).max(1);
    let mut parts = vec![(0.0, 0usize); width];
    for (step, value) in points.iter().filter(|(_, value)| value.is_finite()) {
        let at = (*step as f64 / (last as f64 + 1.0) * width as f64) as usize;
        if let Some((sum, count)) = parts.get_mut(at.min(width - 1)) {
            // As a part of the scale, so that no sum overflows.
            *sum += if high > low { (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0) } else { 0.5 };
            *count += 1;
        }
    }
    let mean = |at: usize| {
        let (sum, count) = parts.get(at)?;
        (*count > 0).then(|| sum / *count as f64)
    };
    let block = |at: usize| {
        let before = (0..=at).rev().find_map(|i| Some((i, mean(i)?)));
        let behind = (at..width).find_map(|i| Some((i, mean(i)?)));
        let (Some((i, low)), Some((j, high))) = (before, behind) else { return ' ' };
        let along = if j > i { (at - i) as f64 / (j - i) as f64 } else { 0.0 };
        let height = (low + along * (high - low)) * (BLOCKS.len() - 1) as f64;
        BLOCKS.get(height.round() as usize).copied().unwrap_or(' ')
    };
    (0..width).map(block).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_curve_has_a_block_for_each_part_of_the_steps() {
        let points: Vec<(u64, f64)> = (0..8).map(|step| (step, step as f64)).collect();
        assert_eq!(super::sparkline(&points, 8, 7, (0.0, 7.0)), "▁▂▃▄▅▆▇█");
        assert_eq!(
            super::sparkline(&[(0, 0.0), (1, 6.0), (2, 7.0), (3, 7.0)], 2, 3, (0.0, 7.0)),
            "▄█",
            "means"
        );
        // A gap, a constant, what is not finite, and values whose difference overflows.
        assert_eq!(super::sparkline(&[(0, 1.0), (3, 3.0)], 4, 3, (1.0, 3.0)), "▁▃▆█");
        assert_eq!(super::sparkline(&[(1, 1.0), (2, 3.0)], 4, 3, (1.0, 3.0)), " ▁█ ");
        assert_eq!(super::sparkline(&[(0, 2.0), (1, f64::NAN)], 2, 1, (2.0, 2.0)), "▅ ");
        assert_eq!(super::sparkline(&[(0, -1e308), (1, 1e308)], 2, 1, (-1e308, 1e308)), "▁█");
    }

    #[test]
    fn columns_align() {
        let text = super::table(
            &["what", "linear"],
            &[vec!["trained".into(), "81.2".into()], vec!["raw".into(), "9.1".into()]],
        );
        assert_eq!(text, "what     linear\n-------  ------\ntrained    81.2\nraw         9.1");
    }
}
