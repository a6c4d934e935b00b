use proptest::prelude::*;

use super::*;

const HEAD_LINES: &str = "/*!40101 SET NAMES binary*/;\n/*!40014 SET FOREIGN_KEY_CHECKS=0*/;\n";

fn count_in_pieces(name: &str, text: &str, piece: usize) -> FileRows {
    let mut counter = RowCounter::of(name).expect("a data file");
    text.as_bytes().chunks(piece).for_each(|bytes| counter.update(bytes));
    counter.finish()
}

#[track_caller]
fn assert_count(name: &str, text: &str, wanted: FileRows) {
    for piece in [1, 2, 3, 7, 16, 1000, 1 << 20] {
        assert_eq!(count_in_pieces(name, text, piece), wanted, "in pieces of {piece}:\n{text}");
    }
}

#[track_caller]
fn assert_rows(text: &str, rows: u64) {
    assert_count("shop.t.00000.sql", text, FileRows::Rows(rows));
}

#[track_caller]
fn assert_unknown(text: &str) {
    assert_count("shop.t.00000.sql", text, FileRows::Unknown);
}

/// As 1.0.1 wrote them: text, binary, JSON, values that look like rows and statements.
#[test]
fn rows_as_mydumper_1_writes_them() {
    assert_rows("", 0);
    assert_rows(HEAD_LINES, 0);
    assert_rows(&format!("{HEAD_LINES}INSERT INTO `one` VALUES(1)\n;\n"), 1);
    let nasty = r#"INSERT INTO `nasty` VALUES(1,"a\n,(1,2)\nb",_binary "\n,(1)\n",_binary "{\"a\":\"x\\n,(\"}","\n(x",1.50,_binary "2026-11-26 11:33:59")
,(2,"(\n(\n",_binary "\n,(\0\r\n\'\"\\",_binary "[1,\n2]","\'\n,(\'",NULL,NULL)
,(3,NULL,NULL,NULL,NULL,NULL,NULL)
,(5,"INSERT INTO `x` VALUES (1)\n,(2);\n",_binary "\n,(\n,(\n,(\n,(\n,(",_binary "1",");",-1.00,_binary "2026-11-26 11:33:59")
;
"#;
    assert_rows(&format!("{HEAD_LINES}{nasty}"), 4);
    assert_rows(&format!("{HEAD_LINES}{nasty}{nasty}"), 8);
    assert_rows("REPLACE INTO `t` VALUES(0x0A2C28)\n,(\"\")\n;\n", 2);
    assert_rows("INSERT IGNORE INTO `t` (`a`,`b`) VALUES(1,2)\n,(3,4)\n;\n", 2);
    assert_rows("INSERT INTO `a VALUES(` (`a\n,(b`,`VALUES(`,`c``d`) VALUES(1,2,3)\n,(3,4,5)\n;\n", 2);
    assert_rows("INSERT INTO \"t\" (\"a VALUES(1)\") VALUES(1)\n;\n", 1);
}

#[test]
fn rows_as_mydumper_0_10_writes_them() {
    let text = "/*!40103 SET TIME_ZONE='+00:00' */;\nINSERT INTO `t` VALUES\n(1,\"),\\n(\"),\n(2,\"x\"),\n(3,\";\");\n";
    assert_rows(text, 3);
    assert_rows(&format!("{text}INSERT INTO `t` (`a\n,(b`) VALUES\n(1);\n"), 4);
    assert_rows(text.trim_end(), 3);
}

#[test]
fn what_does_not_look_so_is_not_counted() {
    // Newlines in values.
    assert_unknown("INSERT INTO `t` VALUES(1,'a\nb')\n,(2,'c')\n;\n");
    assert_unknown("INSERT INTO `t` VALUES(1,'a\n,(b')\n,(2,'c')\n;\n");
    assert_unknown("INSERT INTO `t` VALUES\n(1,'a\n(b'),\n(2,'c');\n");
    // Cut short.
    assert_unknown("INSERT INTO `t` VALUES(1)\n,(2)\n");
    assert_unknown("INSERT INTO `t` VALUES(1)\n,(2");
    assert_unknown("INSERT INTO `t` VALUES\n(1),\n(2),\n");
    assert_unknown("INSERT INTO `t` (`a");
    // --lines-starting-by, rows without a statement, rows that are elsewhere, garbage amid the rows.
    assert_unknown("INSERT INTO `t` VALUES[1]\n,[2]\n;\n");
    assert_unknown(",(1)\n,(2)\n;\n");
    assert_unknown("INSERT INTO `t` FROM INFILE 'shop.t.00000.dat' FORMAT MySQLDump;");
    assert_unknown("INSERT INTO `t` VALUES(1)\n\0\0\0\n,(2)\n;\n");
}

#[test]
fn the_lines_of_a_text_file_are_rows_where_the_statement_beside_it_says_so() {
    assert_count("shop.t.00000.dat", "", FileRows::Lines(0));
    assert_count("shop.t.00000.dat", "1\ta\\nb\n2\t\\N\n", FileRows::Lines(2));
    assert_count("shop.t.00000.dat", "1\ta\n2\tcut", FileRows::Unknown);
    let statement = |lines: &str| {
        format!(
            "{HEAD_LINES}LOAD DATA LOCAL INFILE 'shop.t.00000.dat' INTO TABLE `LINES TERMINATED BY 'x'` FIELDS \
             TERMINATED BY '\\t' ENCLOSED BY '' ESCAPED BY '\\\\' {lines}(`id`,`t`);\n"
        )
    };
    let loads = |lines: &str, wanted| assert_count("shop.t.00000.sql", &statement(lines), wanted);
    loads("LINES STARTING BY '' TERMINATED BY '\\n' ", FileRows::Loads { skipped: 0 });
    loads("LINES TERMINATED BY '\\r\\n' IGNORE 1 LINES ", FileRows::Loads { skipped: 1 });
    loads("LINES STARTING BY '' TERMINATED BY '|' ", FileRows::Unknown);
    loads("LINES STARTING BY '' TERMINATED BY '\\n' IGNORE 2 LINES ", FileRows::Unknown);
    loads("", FileRows::Unknown);
    let odd_name = |lines: &str| statement(lines).replace("`id`", "`i\nd`");
    let header = odd_name("LINES STARTING BY '' TERMINATED BY '\\n' IGNORE 1 LINES ");
    assert_count("shop.t.00000.sql", &header, FileRows::Unknown);
    let without = odd_name("LINES STARTING BY '' TERMINATED BY '\\n' ");
    assert_count("shop.t.00000.sql", &without, FileRows::Loads { skipped: 0 });
}

#[test]
fn only_data_files_hold_rows() {
    for name in ["shop.t-schema.sql", "shop-schema-create.sql.zst", "metadata", "shop.t-schema-view.sql", "x"] {
        assert!(RowCounter::of(name).is_none(), "{name}");
    }
}

#[test]
fn counts_survive_as_text() {
    let all = [FileRows::Rows(0), FileRows::Rows(u64::MAX), FileRows::Lines(7), FileRows::Unknown];
    for rows in all.into_iter().chain([FileRows::Loads { skipped: 1 }]) {
        assert_eq!(rows.to_string().parse(), Ok(rows));
    }
    for text in ["", "-1", "lines=", "lines=x", "7 rows", "loads-after=99999999999999999999"] {
        assert!(text.parse::<FileRows>().is_err(), "{text}");
    }
}

proptest! {
    /// Values are what `mysql_real_escape_string` makes of any bytes.
    #[test]
    fn any_values_are_counted(
        rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 1..20),
        old in any::<bool>(),
        piece in 1_usize..40,
    ) {
        let escape = |value: &Vec<u8>| -> Vec<u8> {
            value.iter().flat_map(|byte| match byte {
                b'\n' => b"\\n".to_vec(),
                b'\r' => b"\\r".to_vec(),
                0 => b"\\0".to_vec(),
                0x1a => b"\\Z".to_vec(),
                b'\\' | b'"' | b'\'' => vec![b'\\', *byte],
                byte => vec![*byte],
            }).collect()
        };
        let rows: Vec<Vec<u8>> = rows.iter().map(|value| [b"(\"", escape(value).as_slice(), b"\")"].concat()).collect();
        let text = if old {
            [b"INSERT INTO `t` VALUES\n".as_slice(), &rows.join(&b",\n"[..]), b";\n"].concat()
        } else {
            [b"INSERT INTO `t` VALUES".as_slice(), &rows.join(&b"\n,"[..]), b"\n;\n"].concat()
        };
        let mut counter = RowCounter::of("s.t.00000.sql").expect("a data file");
        text.chunks(piece).for_each(|bytes| counter.update(bytes));
        prop_assert_eq!(counter.finish(), FileRows::Rows(rows.len() as u64));
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in "(INSERT |REPLACE |LOAD DATA |LINES TERMINATED BY '| VALUES|`|,|\\(|\\)|;|\n|x){0,30}",
        piece in 1_usize..10,
    ) {
        let one = count_in_pieces("s.t.00000.sql", &bytes, piece);
        prop_assert_eq!(one, count_in_pieces("s.t.00000.sql", &bytes, 1000));
        let _ = bytes.parse::<FileRows>();
        count_in_pieces("s.t.00000.dat", &bytes, piece);
    }
}
