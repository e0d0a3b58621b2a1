"""New labels for chips without a label or with a rejected one."""
