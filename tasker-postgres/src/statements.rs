//! The texts of all statements, with the name of the schema filled in.
//!
//! Names are qualified instead of looked up on a search path, which is a setting of the session
//! and so is not to be relied on behind a pooler that hands sessions around.

use std::sync::Arc;

macro_rules! statements {
    ($($name:ident)*) => {
        /// Every statement, by the name of its file.
        #[derive(Debug)]
        pub(crate) struct Statements {
            $(pub(crate) $name: Arc<str>,)*
        }

        impl Statements {
            pub(crate) fn new(schema: &str) -> Self {
                let schema = quoted(schema);
                Self {
                    $($name: include_str!(concat!("../queries/", stringify!($name), ".sql"))
                        .replace("{schema}", &schema)
                        .into(),)*
                }
            }

            /// All of them, with their names.
            #[cfg(test)]
            pub(crate) fn all(&self) -> Vec<(&'static str, &str)> {
                vec![$((stringify!($name), &*self.$name),)*]
            }
        }
    };
}

statements! {
    announce begin begin_step claim commit create delete_ended delete_news delete_offers
    delete_queue find find_degraded find_exceptional hold_offers insert_documents insert_history
    insert_news insert_offers insert_queue insert_template is_same_step list_documents
    list_documents_in_state load lock_author lock_lost_worker lock_offers lock_owners lock_queue
    lock_tasks lock_worker mark_touched mark_waiting notify prune renew retire_unknown
    select_documents select_documents_due select_ended select_existing select_held_offers
    select_history select_offered select_others select_owned select_present select_tasks
    select_template select_template_key set_aside set_offer_aside take_over try_retention
    update_tasks write_document
}

/// A name as an identifier, whatever it contains.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
